"""A tenant's token opens that tenant alone, however an address is written."""

import pytest
from fakes.faces import Api, runtime_of
from fakes.world import World

pytestmark = pytest.mark.world(filled=True)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/tenants/bob",
        "/api/v1/tenants/alice/../bob",
        "/api/v1/tenants/alice%2f..%2fbob/status",
        "/api/v1/tenants/alice%2F../bob/status",
        "/api/v1/tenants//alice/status",
        "//api/v1/tenants/bob",
        "/api/v1/./tenants/bob",
        "/api/v1/tenants/alice/./../bob/status",
        "/api/v1/tenants/ALICE/status",
        "/api/v1/tenants/alic%C3%A9/status",
        "/api/v1/tenants/alice%00/status",
        "/api/v1/tenants/alice;/status",
        "/api/v1/tenants",
        "/api/v1/tenants/",
        "/api/v1/tenants?x=/api/v1/tenants/alice/",
        "/api/v1/activity?tenant=alice",
        "/api/v1/pools",
        "/api/v1/tokens",
        "/API/v1/tokens",
        "/readyz",
        "/openapi.json",
    ],
)
def test_a_tenants_token_reaches_nobody_else(world: World, path: str) -> None:
    """No way of writing an address lets the token of one tenant see another, or the host."""
    runtime = runtime_of(world, listen="127.0.0.1:7070")
    _, text = runtime.tokens.create("mine", "tenant", tenant="alice")
    Api(runtime).post("/api/v1/tenants/bob/claim", json={"metadata": {"word": "bobs-word"}})
    outside = Api(runtime, local=False)

    for prefix, headers in (("", {"Authorization": f"Bearer {text.reveal()}"}), (f"/t/{text.reveal()}", {})):
        said = outside.get(f"{prefix}{path}", headers={**headers, "Host": "127.0.0.1:7070"})

        assert said.status_code in (400, 403, 404, 422), (path, said.status_code, said.text)
        assert "bobs-word" not in said.text
        assert text.reveal() not in said.text + str(said.headers)
