"""What the project tests."""

import pytest


@pytest.mark.parametrize("time", [1, 2])
async def test_a_user_is_greeted_as_the_settings_say(client, time):
    response = await client.post("/users/ada")

    assert response.json() == "Hello, ada"
    assert (await client.get("/users/count")).json() == 1
