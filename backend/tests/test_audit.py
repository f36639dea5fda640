"""The audit log: written with the change or not at all, and read by administrators."""

from httpx import AsyncClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import AuditEvent, User
from tests.factories import ClientFactory, create_team


async def test_a_change_is_recorded_with_who_and_what(
    admin_client: AsyncClient, db: AsyncSession, admin_user: User
) -> None:
    team = (await admin_client.post("/api/teams", json={"name": "Night", "slug": "night"})).json()

    event = (await db.scalars(select(AuditEvent))).one()
    assert (event.actor_id, event.action, event.entity) == (admin_user.id, "create", "team")
    assert (event.entity_id, event.data) == (team["id"], {"slug": "night"})


async def test_a_change_that_is_refused_is_not_recorded(
    admin_client: AsyncClient, db: AsyncSession
) -> None:
    await create_team(db, slug="night")

    await admin_client.post("/api/teams", json={"name": "Night", "slug": "night"})

    assert await db.scalar(select(func.count()).select_from(AuditEvent)) == 0


async def test_a_request_that_only_reads_is_not_recorded(
    admin_client: AsyncClient, db: AsyncSession
) -> None:
    await admin_client.get("/api/teams")

    assert await db.scalar(select(func.count()).select_from(AuditEvent)) == 0


async def test_the_newest_comes_first(admin_client: AsyncClient) -> None:
    for slug in ("one", "two", "three"):
        await admin_client.post("/api/teams", json={"name": slug, "slug": slug})

    response = await admin_client.get("/api/audit")

    slugs = [event["data"]["slug"] for event in response.json()["items"]]
    assert slugs == ["three", "two", "one"]


async def test_it_comes_in_pages(admin_client: AsyncClient) -> None:
    for slug in ("one", "two", "three"):
        await admin_client.post("/api/teams", json={"name": slug, "slug": slug})

    first = (await admin_client.get("/api/audit?limit=2")).json()
    last = (await admin_client.get(f"/api/audit?limit=2&cursor={first['next_cursor']}")).json()

    assert [event["data"]["slug"] for event in last["items"]] == ["one"]
    assert last["next_cursor"] is None


async def test_it_can_be_filtered_by_action(
    admin_client: AsyncClient, db: AsyncSession, admin_user: User
) -> None:
    team = await create_team(db, owner=admin_user)
    await admin_client.patch(f"/api/teams/{team.id}", json={"name": "Day"})
    await admin_client.delete(f"/api/teams/{team.id}")

    response = await admin_client.get("/api/audit?action=delete")

    assert [event["action"] for event in response.json()["items"]] == ["delete"]


async def test_it_can_be_filtered_by_what_was_changed(admin_client: AsyncClient) -> None:
    await admin_client.post("/api/teams", json={"name": "one", "slug": "one"})
    second = (await admin_client.post("/api/teams", json={"name": "two", "slug": "two"})).json()

    response = await admin_client.get(f"/api/audit?entity=team&entity_id={second['id']}")

    assert [event["data"]["slug"] for event in response.json()["items"]] == ["two"]


async def test_it_outlives_the_account_of_who_made_the_change(
    admin_client: AsyncClient, client_factory: ClientFactory, db: AsyncSession, regular_user: User
) -> None:
    theirs = client_factory(regular_user)
    team = (await theirs.post("/api/teams", json={"name": "one", "slug": "one"})).json()
    await theirs.delete(f"/api/teams/{team['id']}")

    await admin_client.delete(f"/api/users/{regular_user.id}")

    created = select(AuditEvent.actor_id).where(AuditEvent.action == "create")
    assert (await db.scalars(created)).all() == [None]
