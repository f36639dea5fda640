"""docs/shapes.md shows the conftests that the shapes run with."""

from ci.shapes import PAGE, SMALLEST, conftests, refreshed, shown
from guarantees.pages import text
from guarantees.project import HERE


def test_the_page_shows_each_conftest_as_it_is() -> None:
    assert refreshed(text(PAGE)) == text(PAGE), "make shapes-page"


def test_the_page_shows_every_shape_once_and_the_smallest_first() -> None:
    assert sorted(shown(text(PAGE))) == sorted(conftests())
    assert shown(text(PAGE))[0] == SMALLEST


def test_the_page_names_the_shapes_that_have_no_conftest_of_their_own() -> None:
    shapes = {path.name for path in (HERE / "shapes").iterdir() if path.is_dir()}

    assert [name for name in shapes - conftests().keys() if f"`{name}`" not in text(PAGE)] == []
