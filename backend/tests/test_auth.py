"""Accounts: registering, logging in, refreshing, logging out, changing the password."""

from datetime import UTC, datetime, timedelta

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import RefreshToken, User
from app.security import dummy_hash, verify_password
from tests.factories import PASSWORD, ClientFactory, create_user

ACCOUNT = {"email": "ada@example.com", "password": PASSWORD, "full_name": "Ada Lovelace"}


async def log_in(client: AsyncClient, email: str, password: str = PASSWORD) -> Response:
    """Log in as a browser's form would."""
    form = {"username": email, "password": password}
    return await client.post("/api/auth/login", data=form)


async def refresh(client: AsyncClient, token: str) -> Response:
    """Trade in a refresh token."""
    return await client.post("/api/auth/refresh", json={"refresh_token": token})


class TestRegister:
    async def test_answers_with_the_account(self, client: AsyncClient) -> None:
        response = await client.post("/api/auth/register", json=ACCOUNT)

        assert response.status_code == 201
        body = response.json()
        assert (body["email"], body["full_name"], body["role"], body["is_active"]) == (
            "ada@example.com",
            "Ada Lovelace",
            "member",
            True,
        )

    async def test_never_shows_the_password_hash(self, client: AsyncClient) -> None:
        response = await client.post("/api/auth/register", json=ACCOUNT)

        assert not any("password" in key for key in response.json())

    async def test_stores_a_hash_and_not_the_password(
        self, client: AsyncClient, db: AsyncSession
    ) -> None:
        await client.post("/api/auth/register", json=ACCOUNT)

        stored = await db.scalar(select(User.password_hash))
        assert stored is not None
        assert stored.startswith("$argon2id$")
        assert PASSWORD not in stored
        assert verify_password(PASSWORD, stored) is True

    async def test_refuses_an_address_that_is_taken(self, client: AsyncClient) -> None:
        await client.post("/api/auth/register", json=ACCOUNT)

        response = await client.post("/api/auth/register", json=ACCOUNT)

        assert response.status_code == 409
        assert response.json() == {"detail": "this email address is already registered"}

    async def test_takes_an_address_for_the_same_in_any_case(self, client: AsyncClient) -> None:
        await client.post("/api/auth/register", json=ACCOUNT)

        response = await client.post(
            "/api/auth/register", json=ACCOUNT | {"email": "ADA@Example.com"}
        )

        assert response.status_code == 409

    async def test_goes_on_working_after_a_conflict(
        self, client: AsyncClient, db: AsyncSession
    ) -> None:
        await client.post("/api/auth/register", json=ACCOUNT)
        await client.post("/api/auth/register", json=ACCOUNT)

        response = await client.post(
            "/api/auth/register", json=ACCOUNT | {"email": "grace@example.com"}
        )

        assert response.status_code == 201
        emails = await db.scalars(select(User.email).order_by(User.email))
        assert emails.all() == ["ada@example.com", "grace@example.com"]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("email", "no-at-sign"),
            ("email", "a@b"),
            ("password", "elevenchars"),
            ("password", "x" * 257),
            ("full_name", "x" * 101),
            ("role", "admin"),
        ],
    )
    async def test_refuses_an_invalid_account(
        self, client: AsyncClient, field: str, value: str
    ) -> None:
        response = await client.post("/api/auth/register", json=ACCOUNT | {field: value})

        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body", field]

    async def test_does_not_repeat_the_password_of_what_it_refuses(
        self, client: AsyncClient
    ) -> None:
        response = await client.post("/api/auth/register", json={"password": PASSWORD})

        assert response.status_code == 422
        assert PASSWORD not in response.text


class TestLogin:
    async def test_gives_tokens_that_open_the_account(
        self, client: AsyncClient, regular_user: User
    ) -> None:
        tokens = (await log_in(client, regular_user.email)).json()

        me = await client.get(
            "/api/auth/me", headers={"Authorization": f"Bearer {tokens['access_token']}"}
        )

        assert tokens["token_type"] == "bearer"  # noqa: S105 - the name of a scheme, not a secret
        assert me.json()["email"] == regular_user.email

    async def test_ignores_the_case_of_the_address(
        self, client: AsyncClient, regular_user: User
    ) -> None:
        response = await log_in(client, regular_user.email.upper())

        assert response.status_code == 200

    async def test_refuses_a_wrong_password(self, client: AsyncClient, regular_user: User) -> None:
        response = await log_in(client, regular_user.email, "not the password")

        assert response.status_code == 401
        assert response.json() == {"detail": "wrong email or password"}

    async def test_says_the_same_of_an_unknown_address(
        self, client: AsyncClient, regular_user: User
    ) -> None:
        known = await log_in(client, regular_user.email, "not the password")

        unknown = await log_in(client, "nobody@example.com")

        assert (unknown.status_code, unknown.json()) == (known.status_code, known.json())

    async def test_verifies_a_password_for_an_unknown_address_too(
        self, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verified = []
        monkeypatch.setattr(
            "app.auth.service.verify_password", lambda *given: verified.append(given)
        )

        await log_in(client, "nobody@example.com")

        assert verified == [(PASSWORD, dummy_hash())]

    async def test_refuses_an_inactive_account(self, client: AsyncClient, db: AsyncSession) -> None:
        user = await create_user(db, is_active=False)

        response = await log_in(client, user.email)

        assert response.status_code == 401
        assert response.json() == {"detail": "wrong email or password"}

    async def test_stores_only_a_digest_of_the_refresh_token(
        self, client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        tokens = (await log_in(client, regular_user.email)).json()

        stored = (await db.scalars(select(RefreshToken.token_hash))).all()
        assert len(stored) == 1
        assert stored[0] != tokens["refresh_token"]


class TestRefresh:
    async def test_gives_a_new_pair_of_tokens(
        self, client: AsyncClient, regular_user: User
    ) -> None:
        old = (await log_in(client, regular_user.email)).json()

        response = await refresh(client, old["refresh_token"])

        assert response.status_code == 200
        assert response.json()["refresh_token"] != old["refresh_token"]

    async def test_takes_a_token_once(self, client: AsyncClient, regular_user: User) -> None:
        old = (await log_in(client, regular_user.email)).json()
        await refresh(client, old["refresh_token"])

        response = await refresh(client, old["refresh_token"])

        assert response.status_code == 401
        assert response.json() == {"detail": "invalid or expired refresh token"}

    async def test_revokes_the_family_when_a_token_comes_twice(
        self, client: AsyncClient, regular_user: User
    ) -> None:
        old = (await log_in(client, regular_user.email)).json()
        new = (await refresh(client, old["refresh_token"])).json()
        await refresh(client, old["refresh_token"])

        response = await refresh(client, new["refresh_token"])

        assert response.status_code == 401

    async def test_leaves_other_logins_alone_when_a_family_is_revoked(
        self, client: AsyncClient, regular_user: User
    ) -> None:
        stolen = (await log_in(client, regular_user.email)).json()
        other = (await log_in(client, regular_user.email)).json()
        await refresh(client, stolen["refresh_token"])
        await refresh(client, stolen["refresh_token"])

        response = await refresh(client, other["refresh_token"])

        assert response.status_code == 200

    async def test_refuses_a_token_that_nobody_issued(self, client: AsyncClient) -> None:
        response = await refresh(client, "made up")

        assert response.status_code == 401

    async def test_refuses_an_expired_token(
        self, client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        tokens = (await log_in(client, regular_user.email)).json()
        past = datetime.now(UTC) - timedelta(seconds=1)
        await db.execute(update(RefreshToken).values(expires_at=past))
        await db.commit()

        response = await refresh(client, tokens["refresh_token"])

        assert response.status_code == 401

    async def test_refuses_an_account_that_was_switched_off(
        self, client: AsyncClient, db: AsyncSession, regular_user: User
    ) -> None:
        tokens = (await log_in(client, regular_user.email)).json()
        regular_user.is_active = False
        await db.commit()

        response = await refresh(client, tokens["refresh_token"])

        assert response.status_code == 401


class TestLogout:
    async def test_makes_the_refresh_token_useless(
        self, client: AsyncClient, regular_user: User
    ) -> None:
        token = (await log_in(client, regular_user.email)).json()["refresh_token"]

        response = await client.post("/api/auth/logout", json={"refresh_token": token})

        assert response.status_code == 204
        assert (await refresh(client, token)).status_code == 401

    async def test_does_not_tell_whether_the_token_was_known(self, client: AsyncClient) -> None:
        response = await client.post("/api/auth/logout", json={"refresh_token": "made up"})

        assert response.status_code == 204


class TestMe:
    async def test_tells_who_is_asking(
        self, client_factory: ClientFactory, admin_user: User
    ) -> None:
        response = await client_factory(admin_user).get("/api/auth/me")

        assert response.status_code == 200
        assert (response.json()["email"], response.json()["role"]) == (admin_user.email, "admin")

    async def test_needs_a_token(self, client: AsyncClient) -> None:
        response = await client.get("/api/auth/me")

        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"


class TestPassword:
    async def test_can_be_changed(
        self, client: AsyncClient, client_factory: ClientFactory, regular_user: User
    ) -> None:
        change = {"current_password": PASSWORD, "new_password": "another long password"}

        response = await client_factory(regular_user).post("/api/auth/password", json=change)

        assert response.status_code == 204
        assert (await log_in(client, regular_user.email)).status_code == 401
        login = await log_in(client, regular_user.email, "another long password")
        assert login.status_code == 200

    async def test_stays_when_the_current_one_is_wrong(
        self, client: AsyncClient, client_factory: ClientFactory, regular_user: User
    ) -> None:
        change = {"current_password": "a guess", "new_password": "another long password"}

        response = await client_factory(regular_user).post("/api/auth/password", json=change)

        assert response.status_code == 422
        assert response.json() == {"detail": "the current password is wrong"}
        assert (await log_in(client, regular_user.email)).status_code == 200

    async def test_logs_out_everywhere_when_it_changes(
        self,
        client: AsyncClient,
        client_factory: ClientFactory,
        db: AsyncSession,
        regular_user: User,
    ) -> None:
        await log_in(client, regular_user.email)
        await log_in(client, regular_user.email)
        change = {"current_password": PASSWORD, "new_password": "another long password"}

        await client_factory(regular_user).post("/api/auth/password", json=change)

        valid = select(func.count()).where(RefreshToken.revoked_at.is_(None))
        assert await db.scalar(valid) == 0
