"""Tokens, settings and the limits that protect the application."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from httpx import AsyncClient
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from app.config import Settings, get_settings
from app.db import engine
from app.limits import MAX_BODY_BYTES
from app.models import User
from app.security import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    create_access_token,
    hash_password,
    verify_password,
)


def forged(user: User, **changes: Any) -> str:
    """Return a token that is right but for the changes."""
    now = datetime.now(UTC)
    claims = {
        "sub": str(user.id),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + timedelta(minutes=5),
    }
    key = changes.pop("key", get_settings().secret_key.get_secret_value())
    return jwt.encode(claims | changes, key, algorithm=ALGORITHM)


async def status_of(client: AsyncClient, token: str) -> int:
    """Return what the application answers to the bearer of a token."""
    response = await client.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})
    return response.status_code


async def test_a_token_opens_the_account_it_names(client: AsyncClient, regular_user: User) -> None:
    assert await status_of(client, create_access_token(regular_user.id)) == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": datetime(2020, 1, 1, tzinfo=UTC)},
        {"aud": "somebody-else"},
        {"iss": "somebody-else"},
        {"sub": "not a number"},
        {"key": "another key that is long enough for HS256"},
    ],
    ids=["expired", "audience", "issuer", "subject", "key"],
)
async def test_a_token_that_is_wrong_in_one_thing_opens_nothing(
    client: AsyncClient, regular_user: User, changes: dict[str, Any]
) -> None:
    assert await status_of(client, forged(regular_user, **changes)) == 401


async def test_a_token_of_a_user_who_is_gone_opens_nothing(client: AsyncClient) -> None:
    assert await status_of(client, create_access_token(2_147_483_647)) == 401


def test_a_password_is_recognised_and_another_one_is_not() -> None:
    stored = hash_password("correct horse battery")

    assert verify_password("correct horse battery", stored) is True
    assert verify_password("correct horse staple", stored) is False


def test_two_hashes_of_one_password_differ() -> None:
    assert hash_password("correct horse battery") != hash_password("correct horse battery")


@pytest.mark.parametrize("key", [None, "too short"])
def test_production_does_not_start_without_a_long_key(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)
    monkeypatch.setenv("ENVIRONMENT", "production")
    if key is not None:
        monkeypatch.setenv("SECRET_KEY", key)

    with pytest.raises(ValidationError, match="SECRET_KEY") as refused:
        Settings()

    assert "too short" not in str(refused.value)


def test_a_key_that_is_not_given_is_known_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)

    first, second = Settings(), Settings()

    assert first.secret_key != second.secret_key


def test_the_errors_of_the_database_show_no_values() -> None:
    error = DBAPIError.instance(
        "UPDATE users SET password_hash = :hash",
        {"hash": "secret"},
        Exception("refused"),
        Exception,
        hide_parameters=engine.sync_engine.hide_parameters,
    )

    assert "secret" not in str(error)


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: AsyncClient) -> None:
    response = await client.post("/api/auth/register", content=b"x" * (MAX_BODY_BYTES + 1))

    assert response.status_code == 413


async def test_a_body_of_unknown_size_is_refused_once_it_is_too_large(client: AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"x" * MAX_BODY_BYTES, b"x"):
            yield chunk

    response = await client.post("/api/auth/register", content=chunks())

    assert response.status_code == 413


async def test_health_asks_the_database(client: AsyncClient) -> None:
    response = await client.get("/health")

    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


async def test_no_endpoint_lists_everything_there_is(client: AsyncClient) -> None:
    response = await client.get("/openapi.json")

    answers = {
        path: methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for path, methods in response.json()["paths"].items()
        if "get" in methods
    }
    assert "/api/teams" in answers
    assert [path for path, schema in answers.items() if schema.get("type") == "array"] == []
