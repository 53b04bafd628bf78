"""The API keeps to its description, docs/openapi.json: requests that Schemathesis makes out of it, valid ones and not.

Every answer has the form that the description gives it, every refusal is a problem, and nothing is a defect.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes.faces import listening
from fakes.world import WORKLOAD, World
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

schemathesis = pytest.importorskip("schemathesis")
pytestmark = [
    pytest.mark.world(workload=WORKLOAD.replace("max_size: 3", "max_size: 20"), filled=True),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

DESCRIPTION = json.loads((Path(__file__).parents[2] / "docs/openapi.json").read_text(encoding="utf-8"))
EXAMPLES = 5
"""Requests of one operation and kind; all of them together take some twenty seconds."""

KNOWN = {"tenant": "alice", "pool": "small", "workload": "small", "snapshot": "latest", "path": "a", "name": "none"}
NO_HTTP = "Invalid HTTP request received."
"""The server's own refusal of what never reaches the API."""

UNAVAILABLE = {502, 503, 504, 507}
"""Errors of the world around the API; each names its cause."""


class Served:
    """One API over TCP, and what its answers broke."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.broken = url, dict[str, str]()
        self._session = requests.Session()
        self.headers = {"Authorization": f"Bearer {token}"}
        self._session.headers.update(self.headers)

    def ask(self, case: Any, *, known: bool) -> None:
        """Send one request, and compare its answer with the description."""
        if known:
            case.path_parameters = {
                name: KNOWN.get(name, value) for name, value in (case.path_parameters or {}).items()
            }
        _shorten(case)
        try:
            answer = case.call(base_url=self.url, session=self._session, timeout=20)
        except requests.Timeout as error:
            self.broken.setdefault(case.operation.label, f"{case.method} {case.formatted_path:.300}: {error}")
            return
        except requests.RequestException:
            return  # no HTTP, such as an endless line: the server closes the connection
        if answer.text == NO_HTTP:
            return
        asked = f"{case.method} {case.formatted_path} {case.query} {case.body!r:.300}"
        told = f"{asked}: {answer.status_code} {answer.text:.300}"
        if answer.status_code >= 400:
            problem = answer.json() if answer.headers.get("content-type") == ["application/problem+json"] else {}
            whole = problem.keys() == {"type", "title", "status", "detail", "hint", "exitCode"}
            defect = (
                answer.status_code >= 500 and answer.status_code not in UNAVAILABLE and problem.get("exitCode") == 1
            )
            if not whole or defect or "internal error" in answer.text:
                self.broken.setdefault(case.operation.label, told)
            return
        try:
            case.validate_response(answer, excluded_checks=[], transport_kwargs={})
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is not as described
            self.broken.setdefault(case.operation.label, f"{told}\n{error}")


def _shorten(case: Any) -> None:
    """Nothing of a request may take minutes."""
    if isinstance(case.body, dict) and isinstance(case.body.get("wait"), (int, float)):
        case.body["wait"] = min(case.body["wait"], 0)
    if case.query:
        case.query.pop("follow", None)


@pytest.fixture
def served(world: World) -> Iterator[Served]:
    with listening(world) as (runtime, url):
        made = Served(url, runtime.tokens.create("all", "admin")[1].reveal())
        for tenant in ("alice", "bob"):
            world.tenants.claim(tenant, "small")  # type: ignore[arg-type]
        world.write("alice", {"a": "text"})
        world.tenants.sync("alice")  # type: ignore[arg-type]
        yield made
        runtime.upgrades.stop(5)


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_every_operation_keeps_to_its_description(served: Served, mode: str) -> None:
    """Requests that the description allows, and requests that it does not, get answers that it describes."""
    schema = schemathesis.openapi.from_dict(DESCRIPTION)
    generation = schemathesis.GenerationMode[mode]
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        try:
            strategy = operation.as_strategy(generation_mode=generation)
        except Exception:  # noqa: BLE001 - an operation without parameters has no wrong request
            continue

        @seed(asked)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=strategy, known=st.booleans())
        def asks(case: Any, known: bool) -> None:
            served.ask(case, known=known)

        with suppress(Unsatisfiable):  # every request without parameters is a right one
            asks()
            asked += 1

    assert asked > 30
    assert requests.get(f"{served.url}/livez", headers=served.headers, timeout=20).status_code == 200
    assert not served.broken, "\n\n".join(served.broken.values())
    assert threading.active_count() < 200
