"""Finding tasks."""

import json

from sqlalchemy import ColumnElement, Select, func, or_, select

from app.models import Label, Project, Task
from app.tasks.schemas import TaskQuery


def find_tasks(project: Project, query: TaskQuery) -> Select[Task]:
    """Return the tasks of a project that pass every filter of `query`."""
    tasks = select(Task).where(Task.project_id == project.id)
    if query.status is not None:
        tasks = tasks.where(Task.status == query.status)
    if query.assignee is not None:
        tasks = tasks.where(Task.assignee_id == query.assignee)
    if query.label is not None:
        tasks = tasks.where(Task.labels.any(Label.name == query.label))
    if query.q is not None:
        words = func.websearch_to_tsquery("english", query.q)
        tasks = tasks.where(Task.search.bool_op("@@")(words))
    if query.field is not None:
        tasks = tasks.where(_has_field(query.field))
    return tasks


def _has_field(field: str) -> ColumnElement[bool]:
    """Match `key:value`; `points:3` finds the number as well as the text."""
    key, _, value = field.partition(":")
    candidates: list[object] = [value]
    try:
        parsed = json.loads(value, parse_constant=_refuse)
    except ValueError:
        pass
    else:
        if not isinstance(parsed, dict | list | str):
            candidates.append(parsed)
    return or_(*(Task.custom_fields.contains({key: candidate}) for candidate in candidates))


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which Python reads as JSON and PostgreSQL does not."""
    raise ValueError(constant)
