"""What can be wrong with a request, as the services say it; `app.error_handlers` answers it."""

from sqlalchemy.exc import IntegrityError


class RefusedError(Exception):
    """The request cannot be fulfilled; the message tells the client why."""


class UnauthenticatedError(RefusedError):
    """Nobody, or somebody who has not shown who they are."""


class ForbiddenError(RefusedError):
    """Visible to this user, but not theirs to do."""


class NotFoundError(RefusedError):
    """Not there, or not for this user to see."""


class ConflictError(RefusedError):
    """Well-formed, but at odds with what is stored."""


class InvalidError(RefusedError):
    """Well-formed, but wrong in a way that only the database can tell."""


# Relied on by name: the naming convention of `Base` and the migrations agree on them.
CONSTRAINTS: dict[str, RefusedError] = {
    "uq_users_email_lower": ConflictError("this email address is already registered"),
    "uq_teams_slug": ConflictError("this slug is already taken"),
    "pk_team_members": ConflictError("this user is already a member of the team"),
    "fk_team_members_user_id_users": InvalidError("no such user"),
    "fk_projects_team_id_teams": ConflictError("the team still has projects"),
    "uq_projects_team_id_key": ConflictError("the team already has a project with this key"),
    "uq_labels_project_id_name": ConflictError("the project already has a label with this name"),
    "uq_tasks_project_id_external_ref": ConflictError("the project already has this external_ref"),
    "uq_tasks_project_id_position": ConflictError("the order of the tasks has changed meanwhile"),
    "ck_tasks_due_not_before_start": InvalidError("due_date must not be before start_date"),
}
STALE = "the record has changed since it was read"


def explain(error: IntegrityError) -> RefusedError | None:
    """Return what a violated constraint means, if a client can do something about it."""
    driver_error = getattr(error.orig, "__cause__", None)
    return CONSTRAINTS.get(getattr(driver_error, "constraint_name", None) or "")
