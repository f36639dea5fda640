"""The one place where what goes wrong becomes an answer."""

from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from app.errors import (
    STALE,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RefusedError,
    UnauthenticatedError,
    explain,
)

STATUSES: dict[type[Exception], int] = {
    UnauthenticatedError: status.HTTP_401_UNAUTHORIZED,
    ForbiddenError: status.HTTP_403_FORBIDDEN,
    NotFoundError: status.HTTP_404_NOT_FOUND,
    ConflictError: status.HTTP_409_CONFLICT,
    InvalidError: status.HTTP_422_UNPROCESSABLE_CONTENT,
}


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    """Answer with the message; a 401 also tells the client how to log in."""
    is_anonymous = isinstance(error, UnauthenticatedError)
    headers = {"WWW-Authenticate": "Bearer"} if is_anonymous else None
    return JSONResponse({"detail": str(error)}, STATUSES[type(error)], headers)


async def _integrity_error(request: Request, error: Exception) -> JSONResponse:
    refusal = explain(error) if isinstance(error, IntegrityError) else None
    if refusal is None:
        raise error
    return await _refused(request, refusal)


async def _stale_data(request: Request, _error: Exception) -> JSONResponse:
    return await _refused(request, ConflictError(STALE))


async def _data_error(request: Request, error: Exception) -> JSONResponse:
    """Answer 422 to what passes validation but no column can hold, such as a NUL character."""
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    if not sqlstate.startswith("22"):
        raise error
    return await _refused(request, InvalidError("a value cannot be stored in the database"))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """Answer 422 without the input: with it, an answer that is logged would show passwords."""
    if not isinstance(error, RequestValidationError):
        raise error
    shown = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": shown}, status.HTTP_422_UNPROCESSABLE_CONTENT)


def add_exception_handlers(app: FastAPI) -> None:
    """Make `app` answer refusals, its own and the database's, instead of failing on them."""
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(IntegrityError, _integrity_error)
    app.add_exception_handler(StaleDataError, _stale_data)
    app.add_exception_handler(DBAPIError, _data_error)
