"""Which entrance and which token opens each route of the API (threat T12). A route without a row fails a test."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import httpx
import pytest
from claw_runtime.api.app import create_api
from claw_runtime.daemon.assembly import Runtime
from fakes.faces import Api, runtime_of
from fakes.world import World
from starlette.routing import Route

pytestmark = pytest.mark.world(filled=True)

TENANT: Final = "/api/v1/tenants/{tenant}"

EVERY: Final = {"GET /livez"}
"""Any token."""

OWN: Final = {
    f"GET {TENANT}",
    f"POST {TENANT}/claim",
    f"POST {TENANT}/collect",
    f"GET {TENANT}/content",
    f"GET {TENANT}/export",
    f"GET {TENANT}/files",
    f"GET {TENANT}/files/{{path:path}}",
    f"GET {TENANT}/logs",
    f"POST {TENANT}/release",
    f"GET {TENANT}/snapshots",
    f"GET {TENANT}/snapshots/{{snapshot}}",
    f"GET {TENANT}/snapshots/{{snapshot}}/diff",
    f"DELETE {TENANT}/snapshots/{{snapshot}}/pin",
    f"POST {TENANT}/snapshots/{{snapshot}}/pin",
    f"POST {TENANT}/snapshots/{{snapshot}}/restore",
    f"GET {TENANT}/status",
    f"GET {TENANT}/stored",
    f"POST {TENANT}/sync",
    f"GET {TENANT}/container",
    f"GET {TENANT}/transfer",
    f"GET {TENANT}/verify",
}
"""The tenant's own token, and one of scope `admin`."""

ADMIN: Final = {
    "GET /api/v1/activity",
    "GET /api/v1/isolation",
    "POST /api/v1/keys/rewrap",
    "GET /api/v1/pools",
    "POST /api/v1/pools",
    "DELETE /api/v1/pools/{pool}",
    "GET /api/v1/pools/{pool}",
    "PATCH /api/v1/pools/{pool}",
    "PUT /api/v1/pools/{pool}",
    "POST /api/v1/pools/{pool}/drain",
    "GET /api/v1/pools/{pool}/metrics",
    "POST /api/v1/pools/{pool}/recycle",
    "POST /api/v1/pools/{pool}/scale",
    "POST /api/v1/pools/{pool}/undrain",
    "GET /api/v1/pools/{pool}/upgrade",
    "POST /api/v1/pools/{pool}/upgrade",
    "POST /api/v1/pools/{pool}/upgrade/abort",
    "POST /api/v1/pools/{pool}/upgrade/resume",
    "GET /api/v1/recovery",
    "GET /api/v1/routes",
    "GET /api/v1/services",
    "GET /api/v1/tenants",
    f"POST {TENANT}/snapshots/recover",
    f"DELETE {TENANT}/stored",
    "GET /api/v1/workloads",
    "DELETE /api/v1/workloads/{workload}",
    "GET /api/v1/workloads/{workload}",
    "PUT /api/v1/workloads/{workload}",
    "GET /openapi.json",
    "GET /readyz",
}
"""A token of scope `admin` alone."""

SOCKET: Final = {
    f"POST {TENANT}/import",
    f"POST {TENANT}/open",
    "GET /api/v1/tokens",
    "POST /api/v1/tokens",
    "DELETE /api/v1/tokens/{name}",
}
"""No token: only the Unix socket."""

BODIES: Final = {
    f"POST {TENANT}/import": {"source": "/nowhere/state.tar"},
    "POST /api/v1/tokens": {"name": "other", "scope": "admin"},
}
"""What a request must say before its rights are looked at; all others say nothing."""

FILLED: Final = {"pool": "small", "workload": "small", "snapshot": "1", "path:path": "notes", "name": "mine"}
ALL: Final = sorted(EVERY | OWN | ADMIN | SOCKET)


@pytest.fixture
def runtime(world: World) -> Runtime:
    return runtime_of(world, listen="127.0.0.1:7070")


def served(routes: Iterable[Any]) -> Iterator[str]:
    """Method and path of each route, also of the routers within."""
    for route in routes:
        if isinstance(route, Route):
            yield from (f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"})
        else:
            yield from served(route.original_router.routes)


def ask(runtime: Runtime, route: str, *, token: str = "", tenant: str = "alice") -> httpx.Response:
    """One request over TCP."""
    method, _, path = route.partition(" ")
    for name, value in {**FILLED, "tenant": tenant}.items():
        path = path.replace(f"{{{name}}}", value)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body: dict[str, Any] | None = BODIES.get(route, {}) if method != "GET" else None
    return Api(runtime, local=False).request(method, path, headers=headers, json=body)


def test_every_route_has_one_row(runtime: Runtime) -> None:
    """A new route must say which token opens it, and a row of no route goes."""
    assert sorted(served(create_api(runtime).routes)) == sorted([*EVERY, *OWN, *ADMIN, *SOCKET])


def test_without_a_token_each_is_closed(runtime: Runtime) -> None:
    """Over TCP each route is 401 for a request without a token."""
    assert {route for route in ALL if ask(runtime, route).status_code != 401} == set()


def test_a_tenants_token_opens_its_own_routes_alone(runtime: Runtime) -> None:
    """Whether a request is 403 depends on the row only, not on what it asks for."""
    mine = runtime.tokens.create("mine", "tenant", tenant="alice")[1].reveal()

    assert {route for route in ALL if ask(runtime, route, token=mine).status_code == 403} == ADMIN | SOCKET


def test_a_tenants_token_opens_no_route_of_another_tenant(runtime: Runtime) -> None:
    """Each route of one tenant is 403 for the token of another."""
    mine = runtime.tokens.create("mine", "tenant", tenant="alice")[1].reveal()
    theirs = [route for route in ALL if "{tenant}" in route]

    assert {ask(runtime, route, token=mine, tenant="bob").status_code for route in theirs} == {403}


def test_an_admins_token_opens_all_but_what_needs_the_socket(runtime: Runtime) -> None:
    """A stolen token of scope `admin` can neither make tokens nor read files of the host."""
    admin = runtime.tokens.create("mine", "admin")[1].reveal()
    answers = {route: ask(runtime, route, token=admin).status_code for route in ALL}

    assert {route for route, status in answers.items() if status == 403} == SOCKET
    assert not {route for route, status in answers.items() if status in (401, 405)}
