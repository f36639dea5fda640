"""Bodies of sign-up and login."""

from typing import Annotated, Literal

from pydantic import StringConstraints

from app.schemas import Email, Input, Output

# The upper bound keeps a request from buying a long hash computation.
NewPassword = Annotated[str, StringConstraints(min_length=12, max_length=256)]


class RegisterIn(Input):
    """A new account."""

    email: Email
    password: NewPassword
    full_name: Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)] = ""


class TokenIn(Input):
    """A refresh token to trade in or to give up."""

    refresh_token: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class PasswordIn(Input):
    """A change of password."""

    current_password: Annotated[str, StringConstraints(max_length=256)]
    new_password: NewPassword


class TokensOut(Output):
    """What a client needs to stay logged in."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the name of a scheme, not a secret
