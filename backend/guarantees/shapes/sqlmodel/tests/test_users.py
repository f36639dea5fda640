"""What the project tests."""

from sqlmodel import select

from app.models import User


async def test_a_user_is_created(client, db):
    response = await client.post("/users", json={"email": "ada"})

    assert response.status_code == 200
    assert [user.email for user in await db.exec(select(User))] == ["ada"]


async def test_an_email_is_taken_once(client):
    codes = [(await client.post("/users", json={"email": "ada"})).status_code for _ in range(2)]

    assert codes == [200, 409]
    assert len((await client.get("/users")).json()) == 1
