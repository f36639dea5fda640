"""What the project tests."""


async def test_a_user_registers_and_logs_in(client):
    account = {"email": "ada@example.com", "password": "a long password"}
    assert (await client.post("/auth/register", json=account)).status_code == 201

    form = {"username": account["email"], "password": account["password"]}
    token = (await client.post("/auth/login", data=form)).json()["access_token"]

    response = await client.get("/me", headers={"Authorization": f"Bearer {token}"})
    assert response.json() == "ada@example.com"


async def test_a_client_is_logged_in(client_factory, regular_user):
    assert (await client_factory(regular_user).get("/me")).json() == regular_user.email


async def test_hashing_is_cheap(regular_user):
    assert "$m=8,t=1,p=1$" in regular_user.hashed_password


async def test_nobody_is_not(client):
    assert (await client.get("/me")).status_code == 401
