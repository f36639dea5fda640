"""Builders of rows: plain functions with usable defaults, each committing as a request would.

At the end stands what else several test modules share.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import date
from itertools import count
from typing import Any

from httpx import AsyncClient
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import lazyload

from app.models import (
    Comment,
    Job,
    JobStatus,
    Label,
    Project,
    Role,
    Task,
    TaskPriority,
    TaskStatus,
    Team,
    TeamMember,
    TeamRole,
    User,
)
from app.security import hash_password

PASSWORD = "correct horse battery"  # noqa: S105 - opens nothing but accounts made by tests

_number = count(1)


async def create_user(
    db: AsyncSession,
    *,
    role: str = "member",
    email: str | None = None,
    password: str = PASSWORD,
    is_active: bool = True,
) -> User:
    """Create a user with one of the roles that `setup_roles` made."""
    by_name = select(Role).where(Role.name == role).options(lazyload(Role.permissions))
    user = User(
        email=email or f"user{next(_number)}@example.com",
        full_name="Test User",
        password_hash=hash_password(password),
        is_active=is_active,
        role=(await db.scalars(by_name)).one(),
    )
    db.add(user)
    await db.commit()
    return user


async def create_team(
    db: AsyncSession,
    *,
    owner: User | None = None,
    members: Sequence[User] = (),
    name: str | None = None,
    slug: str | None = None,
) -> Team:
    """Create a team with an owner, who is created too unless given."""
    number = next(_number)
    owner = owner or await create_user(db)
    team = Team(name=name or f"Team {number}", slug=slug or f"team-{number}")
    db.add(team)
    await db.flush()
    db.add(TeamMember(team_id=team.id, user_id=owner.id, role=TeamRole.OWNER))
    db.add_all(TeamMember(team_id=team.id, user_id=user.id) for user in members)
    await db.commit()
    return team


async def add_member(
    db: AsyncSession,
    *,
    team_id: int,
    user: User | None = None,
    role: TeamRole = TeamRole.MEMBER,
) -> TeamMember:
    """Add a user, a new one unless given, to a team."""
    user = user or await create_user(db)
    member = TeamMember(team_id=team_id, user_id=user.id, role=role, user=user)
    db.add(member)
    await db.commit()
    return member


async def create_project(
    db: AsyncSession,
    *,
    team: Team | None = None,
    member: User | None = None,
    key: str | None = None,
    name: str | None = None,
) -> Project:
    """Create a project in a team, which is created too unless given: with a member, or without."""
    number = next(_number)
    team = team or await create_team(db, members=[member] if member else [])
    project = Project(team_id=team.id, key=key or f"P{number}", name=name or f"Project {number}")
    db.add(project)
    await db.commit()
    return project


async def create_task(  # noqa: PLR0913 - keyword-only, one for each column a test cares about
    db: AsyncSession,
    *,
    project: Project | None = None,
    title: str | None = None,
    description: str = "",
    status: TaskStatus = TaskStatus.TODO,
    priority: TaskPriority = TaskPriority.NORMAL,
    assignee: User | None = None,
    labels: Sequence[Label] = (),
    start_date: date | None = None,
    due_date: date | None = None,
    external_ref: str | None = None,
    custom_fields: dict[str, Any] | None = None,
) -> Task:
    """Create a task at the end of its project."""
    project = project or await create_project(db)
    last = await db.scalar(select(func.max(Task.position)).where(Task.project_id == project.id))
    task = Task(
        project_id=project.id,
        project=project,
        title=title or f"Task {next(_number)}",
        description=description,
        status=status,
        priority=priority,
        position=(last or 0) + 1,
        assignee_id=assignee.id if assignee else None,
        labels=list(labels),
        start_date=start_date,
        due_date=due_date,
        external_ref=external_ref,
        custom_fields=custom_fields or {},
    )
    db.add(task)
    await db.commit()
    return task


async def create_label(
    db: AsyncSession,
    *,
    project: Project | None = None,
    name: str | None = None,
    color: str = "#808080",
) -> Label:
    """Create a label, in a project of its own unless one is given."""
    project = project or await create_project(db)
    label = Label(project_id=project.id, name=name or f"label-{next(_number)}", color=color)
    db.add(label)
    await db.commit()
    return label


async def create_comment(
    db: AsyncSession,
    *,
    task: Task | None = None,
    author: User | None = None,
    body: str = "Looks good to me.",
) -> Comment:
    """Comment on a task; task and author are created too unless given."""
    task = task or await create_task(db)
    author = author or await create_user(db)
    comment = Comment(task_id=task.id, author_id=author.id, body=body)
    db.add(comment)
    await db.commit()
    return comment


async def create_job(
    db: AsyncSession,
    *,
    kind: str = "report",
    payload: dict[str, Any] | None = None,
    status: JobStatus = JobStatus.QUEUED,
    attempts: int = 0,
) -> Job:
    """Put a job into the queue, or straight into another state."""
    job = Job(kind=kind, payload=payload or {}, status=status, attempts=attempts)
    db.add(job)
    await db.commit()
    return job


# What the fixture `client_factory` is: a user's HTTP client, or without a user an anonymous one.
ClientFactory = Callable[..., AsyncClient]


async def wait_for_a_blocked_query(db: AsyncSession) -> None:
    """Return when some session of this database waits for a lock; fail after 10 seconds."""
    blocked = text(
        "SELECT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    async with asyncio.timeout(10):
        while not await db.scalar(blocked):
            await db.rollback()  # within a transaction the view stands still
            await asyncio.sleep(0.01)
