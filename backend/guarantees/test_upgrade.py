"""Promise 13: an upgrade replaces what is ours, keeps what is yours, and else says why not.

What every shape's block becomes, and that its tests pass then, is tested by test_drop_in.py.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from guarantees.conftest import REAL_CONFTEST, Project
from guarantees.test_docs import ROOT
from upgrade.blocks import blocks, usual
from upgrade.change import RefusedError, releases, upgrade
from upgrade.parts import (
    END,
    OLD_ACTORS,
    changed_lines,
    code_lines,
    compose,
    parts,
)

CURRENT = REAL_CONFTEST.read_text(encoding="utf-8")
OLD = releases()["0.1.0"]
# In 0.1 the app had another name in the block, which stays.
OLD_UPGRADED = CURRENT.replace("reference_app", "application")
NEXT = "9.9.9"


def a_next_version(*, without: str = "", more: str = "") -> dict[str, str]:
    """Return the released versions as they may be in a year: the newest has another machinery."""
    current = parts(CURRENT)
    machinery = current.machinery.replace(f'"{current.version}"', f'"{NEXT}"')
    head = current.head.replace(without, "", 1)
    return releases() | {NEXT: head + current.block + machinery + more}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command of `make upgrade`."""
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "upgrade", *arguments],
        cwd=REAL_CONFTEST.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )


# What is put together, and counted:


@pytest.mark.parametrize("version", releases())
def test_the_parts_of_a_conftest_are_the_conftest(version: str) -> None:
    text = releases()[version]

    found = parts(text)

    assert found.version == version
    without_a_heading = [line for line in text.splitlines() if not line.startswith(OLD_ACTORS)]
    assert "".join(found[:4]).splitlines() == without_a_heading


def test_a_composed_conftest_has_the_block_byte_for_byte() -> None:
    block = "anything = 1  \n\n\n"

    composed = compose(CURRENT, block)

    assert parts(composed).block == block
    assert composed.replace(block, usual()) == CURRENT


def test_lines_are_counted_without_imports_comments_and_docstrings() -> None:
    block = usual().replace("DRIVER =", "# A comment.\nimport os\n\nDRIVER =")
    block = block.replace('"""A user who may do everything."""', '"""Something\n    else."""')

    assert changed_lines(block, usual()) == 0


def test_a_line_that_differs_is_counted_once() -> None:
    block = usual().replace("METADATA = Base.metadata", "METADATA = SQLModel.metadata")

    assert changed_lines(block, usual()) == 1
    assert len(code_lines(block)) == len(code_lines(usual()))


# From the version that was released before:


def test_an_untouched_copy_of_0_1_becomes_an_untouched_copy() -> None:
    done = upgrade(OLD, releases())

    assert (done.before, done.after) == ("0.1.0", parts(CURRENT).version)
    assert done.text == OLD_UPGRADED


def test_the_suite_of_a_copied_0_1_passes_after_its_upgrade(project: Project) -> None:
    project.write("tests/conftest.py", upgrade(OLD, releases()).text)
    project.write(
        "tests/test_it.py",
        """
async def test_it(client_factory, regular_user, admin_user):
    assert (await client_factory(admin_user).get("/users/count")).json() == 2
""",
    )

    result = project.run()

    result.assert_outcomes(passed=1)


def test_the_actors_of_0_1_move_into_the_block_whatever_they_are() -> None:
    actor = "@pytest.fixture\ndef guest():  # mine\n    return 'guest'\n"
    copied = OLD[: OLD.index(OLD_ACTORS)] + actor

    done = upgrade(copied, releases())

    assert actor in parts(done.text).block
    assert "regular_user" not in done.text.partition('"""\n\nfrom')[2]


def test_a_copy_of_0_1_may_have_lost_the_line_for_isort() -> None:
    done = upgrade(OLD.replace("# isort: split\n", ""), releases())

    assert done.text == OLD_UPGRADED


def test_what_the_new_block_has_besides_comes_with_its_comment() -> None:
    done = upgrade(OLD.replace("# ADAPT 3/4: how", "# ADAPT 3/4: OUR how"), releases())

    block = parts(done.text).block
    before, _, after = block.partition("REAL_COMMITS = False\nALLOWED: list[Any] = []\n")
    assert before.rstrip().endswith("engines of other stores, or names of dialects")
    assert "# ADAPT 3/4: OUR how" in before
    assert "def authenticate" in after


def test_a_new_line_stands_below_what_it_uses() -> None:
    copied = OLD.replace("from app.main import app as", "from app.main import create_app as")
    copied = copied.replace("create_app as application", "create_app")
    copied = copied.replace("# Real argon2", "application = create_app()\n# Real argon2")

    done = upgrade(copied, releases())

    assert "application = create_app()\nAPP = application\n# Real" in parts(done.text).block


def test_a_new_line_stands_below_all_imports() -> None:
    done = upgrade(OLD.replace("from tests import factories\n", ""), releases())

    assert "import setup_roles\n\nAPP = application\nSESSION_FACTORIES" in done.text


def test_a_copy_of_0_1_may_have_no_actors() -> None:
    done = upgrade(OLD[: OLD.index(OLD_ACTORS)], releases())

    assert [note for note in done.notes if "end of the file" in note] == []
    assert "regular_user" not in parts(done.text).block


def test_a_name_that_the_head_imported_is_imported_in_the_block() -> None:
    copied = OLD.replace(
        "def authenticate(user: User)",
        "LOCK_FREE = suppress(OSError)\n\n\ndef authenticate(user: User)",
    ).replace("import gc\n", "import gc\nimport asyncio as aio\n")
    known = a_next_version(
        without="from contextlib import aclosing, asynccontextmanager, contextmanager, suppress\n"
    )

    done = upgrade(copied, known)

    block = parts(done.text).block
    assert block.startswith("import asyncio as aio\nfrom contextlib import suppress\n")
    assert "Added to your block: import asyncio as aio" in done.notes


def test_what_the_block_uses_and_the_new_version_lacks_is_named() -> None:
    copied = OLD + "\n\n@pytest.fixture\ndef mine(new_database):\n    return None\n"

    done = upgrade(copied, releases())

    (note,) = [note for note in done.notes if "new_database" in note]
    assert "does not have" in note


# From any version to the next:


@pytest.mark.parametrize("shape", blocks())
def test_a_block_is_kept_byte_for_byte(shape: str) -> None:
    block = blocks()[shape].replace("DRIVER =", "DRIVER  =")  # no formatter has seen it
    copied = compose(CURRENT, block)

    done = upgrade(copied, a_next_version())

    assert parts(done.text).block == block
    assert parts(done.text).version == NEXT
    assert done.notes == []


def test_newlines_stay_as_they_are() -> None:
    copied = CURRENT.replace("\n", "\r\n")

    done = upgrade(copied, a_next_version())

    assert done.text.count("\n") == done.text.count("\r\n")
    assert parts(done.text).block == parts(copied).block
    assert done.notes == []


def test_newlines_stay_as_they_are_from_0_1_on() -> None:
    done = upgrade(OLD.replace("\n", "\r\n"), releases())

    assert done.text == OLD_UPGRADED.replace("\n", "\r\n")


def test_a_formatter_is_no_edit() -> None:
    current = parts(CURRENT)
    head = current.head.replace("import asyncio\nimport functools\n", "import functools, asyncio\n")
    machinery = f"{END}\n{ast.unparse(ast.parse(current.machinery))}\n"

    done = upgrade(head + current.block + machinery, a_next_version())

    assert parts(done.text).version == NEXT
    (note,) = done.notes
    assert note.startswith("Below your block its layout or its comments were changed")


def test_an_edit_is_shown_alone_where_a_formatter_has_been_too() -> None:
    current = parts(CURRENT)
    edited = current.machinery.replace("PATIENCE = 20", "PATIENCE = 60")
    machinery = f"{END}\n{ast.unparse(ast.parse(edited))}\n"

    with pytest.raises(RefusedError) as refused:
        upgrade(current.head + current.block + machinery, a_next_version())

    signs = [line[0] for line in str(refused.value).splitlines() if line[:1] in {"-", "+"}]
    assert signs == ["-", "+", "-", "+"]  # with the names of the two


def test_an_upgrade_is_done_once() -> None:
    first = upgrade(OLD, releases())

    second = upgrade(first.text, releases())

    assert second.text == first.text
    assert second.before == second.after


# Refusals:


@pytest.mark.parametrize("version", releases())
def test_an_edit_below_the_line_is_refused_and_shown(version: str) -> None:
    edited = releases()[version].replace("PATIENCE = 20", "PATIENCE = 60")

    with pytest.raises(RefusedError) as refused:
        upgrade(edited, a_next_version())

    assert f"--- {version}\n" in str(refused.value)
    shown = [line for line in str(refused.value).splitlines() if line.startswith(("-P", "+P"))]
    assert [line.partition("  #")[0] for line in shown] == ["-PATIENCE = 20", "+PATIENCE = 60"]


def test_a_statement_above_the_block_is_an_edit_too() -> None:
    edited = CURRENT.replace("\n# isort: split\n", "\nos.environ['A'] = 'b'\n\n# isort: split\n", 1)

    with pytest.raises(RefusedError, match=r"\+os.environ"):
        upgrade(edited, a_next_version())


def test_an_edit_can_be_given_up() -> None:
    edited = CURRENT.replace("PATIENCE = 20", "PATIENCE = 60")

    done = upgrade(edited, releases(), discard_edits=True)

    assert done.text == CURRENT


def test_a_name_that_both_would_define_is_refused() -> None:
    block = usual().replace("DRIVER =", "lately = 1\nDRIVER =")

    with pytest.raises(RefusedError, match=r"both define lately: .* Rename yours"):
        upgrade(compose(CURRENT, block), a_next_version(more="\nlately = 2\n"))


def test_a_name_that_both_have_always_defined_is_kept_and_named() -> None:
    block = usual().replace("import Base, SessionLocal", "import Base, SessionLocal, engine")

    done = upgrade(compose(CURRENT, block), a_next_version())

    assert parts(done.text).block == block
    (note,) = done.notes
    assert note == f"Your block names something engine, and so does {NEXT}: give yours another name"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import pytest\n", "no line begins with '# === Yours ==='"),
        (
            CURRENT.replace("# Nothing below this line", "# Nothing"),
            "no line says '# Nothing below",
        ),
        (CURRENT.replace("VERSION = ", "VERSION_ = "), "no line below the block says VERSION"),
        (CURRENT.replace('VERSION = "0', 'VERSION = "99'), "newer than this checkout's"),
        (CURRENT.replace('VERSION = "', 'VERSION = "0.0.'), "which is no released version"),
        (OLD.replace("def client(", "def our_client("), r"its machinery has no client\(\)"),
        (OLD + "\ndef (:\n", "invalid syntax"),
    ],
)
def test_what_is_no_copy_of_a_release_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        upgrade(text, releases())


# The command:


def test_the_command_writes_the_file_and_says_what_has_changed(tmp_path: Path) -> None:
    copy = tmp_path / "conftest.py"
    copy.write_text(OLD, encoding="utf-8")

    done = run(copy)

    assert done.returncode == 0
    assert copy.read_text(encoding="utf-8") == OLD_UPGRADED
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{copy}: 0.1.0 -> {parts(CURRENT).version}, ")
    assert "  +REAL_COMMITS = False" in rest


def test_the_command_says_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    copy = tmp_path / "conftest.py"
    copy.write_text(CURRENT, encoding="utf-8")

    done = run(copy)

    assert done.returncode == 0
    assert done.stdout == f"{copy} is {parts(CURRENT).version}, the newest.\n"


def test_a_refused_file_stays_as_it_is(tmp_path: Path) -> None:
    copy = tmp_path / "conftest.py"
    copy.write_text("import pytest\n", encoding="utf-8")

    done = run(copy)

    assert done.returncode == 1
    assert done.stderr.startswith(f"{copy} stays as it is: it is no copy")
    assert copy.read_text(encoding="utf-8") == "import pytest\n"


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "conftest.py"
    copy.write_text(OLD, encoding="utf-8")

    done = run("--dry-run", copy)

    assert "0.1.0 -> " in done.stdout
    assert copy.read_text(encoding="utf-8") == OLD


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(tmp_path / "conftest.py")

    assert done.returncode == 2
    assert f"there is no file {tmp_path / 'conftest.py'}" in done.stderr


def test_a_python_that_is_too_old_is_told() -> None:
    command = ["make", "upgrade", "FILE=conftest.py", "PYTHON=false"]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - no input

    assert "Python 3.11 or newer is needed; type: make upgrade PYTHON=python3.11" in result.stderr
