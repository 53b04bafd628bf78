"""A client that knows only `BOILERHOUSE_API_URL` works unchanged, over TCP, with the token in that URL."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import StoreUnavailable
from fakes.boilerhouse import Boilerhouse, Refused, drive
from fakes.faces import listening
from fakes.world import World

pytestmark = pytest.mark.world(filled=True)


@pytest.fixture
def client(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boilerhouse]:
    with listening(world) as (runtime, url):
        token = runtime.tokens.create("ci", "admin")[1].reveal()
        monkeypatch.setenv("BOILERHOUSE_API_URL", f"{url}/t/{token}")
        yield Boilerhouse(os.environ["BOILERHOUSE_API_URL"])


def place(world: World, container: str, name: str) -> Path:
    """The file behind a name in a container's state."""
    slot = next(slot for slot in world.ledger.slots() if slot.container == container)
    return world.layout.slot(slot.id).state / name


def test_its_own_tests_pass(client: Boilerhouse, world: World) -> None:
    """Claim, status, write, sync, release, claim again: the state is there, and a second tenant sees none of it."""

    def read(container: str, name: str) -> str | None:
        path = place(world, container, name)
        return path.read_text() if path.exists() else None

    drive(
        client,
        "small",
        write=lambda container, name, text: place(world, container, name).write_text(text) and None,
        read=read,
        saved=world.saved,
    )
    assert [world.saved(tenant)["test.txt"] for tenant in ("flow-a", "flow-b")] == ["newer data of a", "data of b"]


@pytest.mark.parametrize("direction", ["download", "both", "upload"])
def test_sync_of_a_cold_tenant_is_done_at_once(client: Boilerhouse, direction: str) -> None:
    """There is nothing to bring anywhere, and every direction says so."""
    client.claim("alice", "small")
    client.release("alice")

    done = client.sync("alice", direction)

    assert done["success"] is True
    assert all(one["success"] and one["note"] and not one["filesTransferred"] for one in done["results"])
    assert len(done["results"]) == (2 if direction == "both" else 1)


def test_a_running_tenant_is_not_overwritten(client: Boilerhouse, world: World) -> None:
    """A download over a running program's newer state is refused with the reason, and changes nothing."""
    client.claim("alice", "small")
    world.write("alice", {"a": "new"})

    with pytest.raises(Refused, match="would be overwritten"):
        client.sync("alice", "download")

    assert (world.state("alice") / "a").read_text() == "new"


def test_sync_both_of_a_running_tenant_commits(client: Boilerhouse, world: World) -> None:
    """The default direction brings what is new to the store; the second time there is nothing new, and it says so."""
    client.claim("alice", "small")
    world.write("alice", {"a": "new"})

    first, second = client.sync("alice"), client.sync("alice")

    assert world.saved("alice") == {"a": "new"}
    assert [one["direction"] for one in first["results"]] == ["upload", "download"]
    assert first["results"][0]["filesTransferred"] == 1
    assert first["results"][0]["bytesTransferred"] > 0
    assert second["results"][0]["note"]
    assert world.row_state("alice") == "active"


def test_a_failed_upload_is_no_success(client: Boilerhouse, world: World) -> None:
    """While a tree waits on this host, a sync tries again; until it succeeds it says why, and so does the status."""
    client.claim("alice", "small")
    world.write("alice", {"a": "new"})
    real, world.store.put = world.store.put, _refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(Refused, match="upload-failed"):
        client.release("alice")

    done = client.sync("alice", "upload")

    assert done["success"] is False
    assert "the store is down" in done["results"][0]["errors"][0]
    assert client.status("alice")["syncStatus"]["state"] == "error"
    world.store.put = real  # type: ignore[method-assign]
    assert client.sync("alice", "upload")["success"] is True
    assert client.status("alice")["syncStatus"]["state"] == "idle"


def _refuse(*_: object, **__: object) -> str:
    raise StoreUnavailable("the store is down", why="test", hint="wait")


def test_errors_are_readable_as_text(client: Boilerhouse) -> None:
    """Such a client shows the text of an error and nothing else: it says what, why and what to do."""
    with pytest.raises(Refused) as caught:
        client.claim("alice", "nowhere")

    told = json.loads(str(caught.value))
    assert "no pool 'nowhere'" in told["title"]
    assert told["detail"]
    assert told["hint"]


def test_metadata_is_kept_and_never_obeyed(client: Boilerhouse) -> None:
    """What a client sends along with a claim is told back, and is nothing but that."""
    note = {"takeOver": True, "poolId": "other", "who": "billing"}
    client._ask("POST", "alice", "claim", {"poolId": "small", "metadata": note})

    status = client.status("alice")

    assert (status["metadata"], status["poolId"]) == (note, "small")


@pytest.mark.parametrize("metadata", ["text", 7, [1], {"a": "x" * 5000}])
def test_metadata_is_a_small_object(client: Boilerhouse, metadata: object) -> None:
    """Other JSON, and more than four kilobytes, are refused before anything is done."""
    with pytest.raises(Refused, match=r"body\.metadata"):
        client._ask("POST", "alice", "claim", {"poolId": "small", "metadata": metadata})

    assert client.status("alice")["state"] == "unknown"
