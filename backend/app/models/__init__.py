"""All models; importing this package registers every table on `Base.metadata`."""

from app.models.enums import JobStatus, TaskPriority, TaskStatus, TeamRole
from app.models.identity import PermissionRow, RefreshToken, Role, User, role_permissions
from app.models.operations import AuditEvent, Job
from app.models.teams import Team, TeamMember
from app.models.work import Comment, Label, Project, Task, task_labels

__all__ = [
    "AuditEvent",
    "Comment",
    "Job",
    "JobStatus",
    "Label",
    "PermissionRow",
    "Project",
    "RefreshToken",
    "Role",
    "Task",
    "TaskPriority",
    "TaskStatus",
    "Team",
    "TeamMember",
    "TeamRole",
    "User",
    "role_permissions",
    "task_labels",
]
