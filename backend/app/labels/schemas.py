"""Bodies of labels."""

from typing import Annotated

from pydantic import StringConstraints

from app.schemas import Input, Output, Patch, optional

LabelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50)]
Color = Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")]


class LabelIn(Input):
    """A new label."""

    name: LabelName
    color: Color = "#808080"


class LabelPatch(Patch):
    """Changes to a label."""

    name: LabelName = optional()
    color: Color = optional()


class LabelOut(Output):
    """A label."""

    id: int
    name: str
    color: str
