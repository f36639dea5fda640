"""Answers to requests that cannot be fulfilled."""

from fastapi import FastAPI, HTTPException, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm.exc import StaleDataError

# Relied on by name: the naming convention of `Base` and the migrations agree on them.
CONSTRAINTS: dict[str, tuple[int, str]] = {
    "uq_users_email_lower": (409, "this email address is already registered"),
    "uq_teams_slug": (409, "this slug is already taken"),
    "pk_team_members": (409, "this user is already a member of the team"),
    "fk_team_members_user_id_users": (422, "no such user"),
    "fk_projects_team_id_teams": (409, "the team still has projects"),
    "uq_projects_team_id_key": (409, "the team already has a project with this key"),
    "uq_labels_project_id_name": (409, "the project already has a label with this name"),
    "uq_tasks_project_id_external_ref": (409, "the project already has this external_ref"),
    "uq_tasks_project_id_position": (409, "the order of the tasks has changed meanwhile"),
    "ck_tasks_due_not_before_start": (422, "due_date must not be before start_date"),
}
STALE = "the record has changed since it was read"


class NotFoundError(HTTPException):
    """404, also for what exists but is not for this user to see."""

    def __init__(self, *, what: str) -> None:
        """Say which kind of thing was not found."""
        super().__init__(status.HTTP_404_NOT_FOUND, f"{what} not found")


class ForbiddenError(HTTPException):
    """403: visible to this user, but not theirs to do."""

    def __init__(self, *, detail: str) -> None:
        """Say what is not allowed."""
        super().__init__(status.HTTP_403_FORBIDDEN, detail)


class ConflictError(HTTPException):
    """409: well-formed, but at odds with what is stored."""

    def __init__(self, *, detail: str) -> None:
        """Say what stands in the way."""
        super().__init__(status.HTTP_409_CONFLICT, detail)


class UnprocessableError(HTTPException):
    """422 for what only the database can tell is wrong."""

    def __init__(self, *, detail: str) -> None:
        """Say what is wrong with the input."""
        super().__init__(status.HTTP_422_UNPROCESSABLE_CONTENT, detail)


class UnauthorizedError(HTTPException):
    """401, with the header that tells clients how to log in."""

    def __init__(self, *, detail: str) -> None:
        """Say what was not accepted."""
        super().__init__(status.HTTP_401_UNAUTHORIZED, detail, {"WWW-Authenticate": "Bearer"})


def explain(error: IntegrityError) -> tuple[int, str] | None:
    """Return status and detail for a violated constraint that a client can do something about."""
    driver_error = getattr(error.orig, "__cause__", None)
    return CONSTRAINTS.get(getattr(driver_error, "constraint_name", None) or "")


async def _integrity_error(_request: Request, error: Exception) -> JSONResponse:
    known = explain(error) if isinstance(error, IntegrityError) else None
    if known is None:
        raise error
    status_code, detail = known
    return JSONResponse({"detail": detail}, status_code)


async def _stale_data(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({"detail": STALE}, status.HTTP_409_CONFLICT)


async def _data_error(_request: Request, error: Exception) -> JSONResponse:
    """Answer 422 to what passes validation but no column can hold, such as a NUL character."""
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    if not sqlstate.startswith("22"):
        raise error
    detail = "a value cannot be stored in the database"
    return JSONResponse({"detail": detail}, status.HTTP_422_UNPROCESSABLE_CONTENT)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """Answer 422 without the input: with it, an answer that is logged would show passwords."""
    if not isinstance(error, RequestValidationError):
        raise error
    shown = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": shown}, status.HTTP_422_UNPROCESSABLE_CONTENT)


def add_exception_handlers(app: FastAPI) -> None:
    """Make `app` answer the database's refusals instead of failing on them."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(IntegrityError, _integrity_error)
    app.add_exception_handler(StaleDataError, _stale_data)
    app.add_exception_handler(DBAPIError, _data_error)
