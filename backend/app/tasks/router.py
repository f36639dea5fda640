"""Endpoints of tasks."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, status

from app.deps import (
    CanWork,
    CurrentUser,
    DbSession,
    MemberProject,
    MemberTask,
    WritableProject,
    WritableTask,
)
from app.models import Task
from app.pagination import Page, fetch_page
from app.tasks import ordering, search, service
from app.tasks.schemas import (
    AssignIn,
    ImportIn,
    ImportOut,
    MoveIn,
    StatsOut,
    StatusIn,
    TaskCreate,
    TaskOut,
    TaskPatch,
    TaskQuery,
)

router = APIRouter(tags=["tasks"])


@router.post(
    "/projects/{project_id}/tasks",
    status_code=status.HTTP_201_CREATED,
    response_model=TaskOut,
    dependencies=[CanWork],
)
async def create_task(
    payload: TaskCreate,
    project: WritableProject,
    user: CurrentUser,
    db: DbSession,
) -> Task:
    """Create a task at the end of a project."""
    task = await service.create_task(db, user, project, payload)
    await db.commit()
    return task


@router.post("/projects/{project_id}/tasks/import", dependencies=[CanWork])
async def import_tasks(
    payload: ImportIn,
    project: WritableProject,
    user: CurrentUser,
    db: DbSession,
) -> ImportOut:
    """Create many tasks; the answer says what became of each row."""
    result = await service.import_tasks(db, user, project, payload.rows)
    await db.commit()
    return result


@router.get("/projects/{project_id}/tasks", response_model=Page[TaskOut])
async def list_tasks(
    project: MemberProject,
    db: DbSession,
    query: Annotated[TaskQuery, Query()],
) -> dict[str, Any]:
    """List the tasks of a project in their order."""
    return await fetch_page(db, search.find_tasks(project, query), Task.position, query)


@router.get("/projects/{project_id}/tasks/stats")
async def task_stats(project: MemberProject, db: DbSession) -> StatsOut:
    """Count the tasks of a project by status."""
    return await service.count_by_status(db, project)


@router.get("/tasks/{task_id}", response_model=TaskOut)
async def get_task(task: MemberTask) -> Task:
    """Return one task."""
    return task


@router.patch("/tasks/{task_id}", response_model=TaskOut, dependencies=[CanWork])
async def update_task(
    patch: TaskPatch,
    task: WritableTask,
    user: CurrentUser,
    db: DbSession,
) -> Task:
    """Change a task, given the version that the client has read."""
    service.update_task(db, user, task, patch)
    await db.commit()
    return task


@router.post("/tasks/{task_id}/status", response_model=TaskOut, dependencies=[CanWork])
async def change_status(
    payload: StatusIn,
    task: WritableTask,
    user: CurrentUser,
    db: DbSession,
) -> Task:
    """Start, finish, cancel or reopen a task."""
    service.change_status(db, user, task, payload.status)
    await db.commit()
    return task


@router.post("/tasks/{task_id}/move", response_model=TaskOut, dependencies=[CanWork])
async def move_task(
    payload: MoveIn,
    task: WritableTask,
    user: CurrentUser,
    db: DbSession,
) -> Task:
    """Move a task to another position in its project."""
    await ordering.move_task(db, user, task, payload.position)
    await db.commit()
    return task


@router.post("/tasks/{task_id}/assign", response_model=TaskOut, dependencies=[CanWork])
async def assign_task(
    payload: AssignIn,
    task: WritableTask,
    user: CurrentUser,
    db: DbSession,
) -> Task:
    """Give a task to a member of the team, or to nobody."""
    await service.assign(db, user, task, payload.assignee_id)
    await db.commit()
    return task


@router.delete(
    "/tasks/{task_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[CanWork],
)
async def delete_task(task: WritableTask, user: CurrentUser, db: DbSession) -> None:
    """Delete a task and close the gap it leaves."""
    await ordering.delete_task(db, user, task)
    await db.commit()
