"""The real image at its start gate: whoever waits there becomes the tenant's gateway, and nothing else of anybody's."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.waiting_gateway import IMAGE, TENANT, Gateway, gateway, podman

pytestmark = [pytest.mark.podman, pytest.mark.image]

TIERS = ("entrypoint", "interpreter", "prewarmed")
POOL = {name: value.replace("tenant", "pool") for name, value in TENANT.items()}
CANARY = "token-of-the-tenant"


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    if subprocess.run(["podman", "image", "exists", IMAGE], check=False).returncode != 0:
        pytest.skip(f"{IMAGE} is not built: make image")


@pytest.fixture(scope="module")
def cold(session_home: Path) -> Iterator[Gateway]:
    """A tenant's earlier life: started cold, told a colour, asked for it, and ended."""
    with gateway(session_home) as made:
        made.bring(TENANT)
        made.start()
        made.model()
        made.ready()
        assert "blue" in made.says("please remember blue")
        assert "blue" in made.says("what is my colour?")
        assert made.stop() == 0
        yield made


def begin(made: Gateway, values: dict[str, str]) -> None:
    """Let it wait, bring the values, open the gate, and wait until it is ready."""
    made.start()
    made.wait()
    made.model()
    made.bring(values)
    made.open_gate()
    made.ready(values["OPENCLAW_GATEWAY_TOKEN"])


@pytest.mark.parametrize("tier", TIERS)
def test_a_waiting_container_answers_as_its_tenants(session_home: Path, cold: Gateway, tier: str) -> None:
    """It remembers the tenant's colour under the tenant's values alone, whatever the pool's environment and an older
    values file said. It is ended by a signal as ever and shows no secret in its environment. Of forty orphans, none
    stays a zombie."""
    with gateway(session_home, tier, environment={**POOL, "TZ": "Etc/UTC"}) as made:
        made.bring(POOL)
        made.start()
        made.wait()
        shutil.copytree(cold.state, made.state, symlinks=True, dirs_exist_ok=True)
        made.bring(TENANT)
        made.model()
        made.open_gate()
        made.ready()

        assert "blue" in made.says("what is my colour?")
        for token in (POOL["OPENCLAW_GATEWAY_TOKEN"], "wrong"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                made.says("hello", token)
            assert refused.value.code == 401
            refused.value.close()
        configuration = podman("exec", made.name, "cat", "/config/openclaw.json")
        assert "of-the-pool" not in configuration
        assert "pool.example.org" not in configuration + made.log()
        assert Path(f"/proc/{made.pid}/cmdline").read_bytes().startswith(b"openclaw")
        assert CANARY.encode() not in Path(f"/proc/{made.pid}/environ").read_bytes()
        podman("exec", made.name, "sh", "-c", 'for i in $(seq 40); do (sh -c "sleep 0.1" &); done; sleep 2')
        assert made.zombies() == 0
        assert made.stop() == 0


@pytest.mark.timed
@pytest.mark.parametrize("tier", TIERS)
def test_nothing_of_a_tenant_is_there_before_the_gate_opens(session_home: Path, tier: str) -> None:
    """While it waits it has written nothing, listens nowhere, and has no file of values, state or logs open; asked to
    end, it does so at once, with 0."""
    with gateway(session_home, tier) as made:
        made.bring(TENANT)
        made.start()
        made.wait()

        look = "ls -A /config /state /logs; cat /proc/net/tcp /proc/net/tcp6 | grep -c ' 0A ' || true; ls -l /proc/2/fd"
        seen = podman("exec", made.name, "sh", "-c", look)
        places = [line.split(" -> ")[1] for line in seen.splitlines() if " -> /" in line]
        assert seen.startswith("/config:\n\n/logs:\n\n/state:\n0\n")
        assert [place for place in places if not place.startswith("/dev/")] == ["/run/claw/door"]
        assert CANARY not in made.log()

        began = time.monotonic()
        assert made.stop() == 0
        assert time.monotonic() - began < 5
        assert [event["tier"] for event in made.events("park.waiting")] == [tier]


def names(state: Path) -> set[str]:
    """Paths below a state, with what is random in them taken out. A database's sidecars and the locks of files come and
    go: a stop can meet a file that is being written."""
    random = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|\d{6,}")
    paths = (path for path in state.rglob("*") if not path.name.endswith((".sqlite-wal", ".sqlite-shm", ".lock")))
    return {random.sub("#", str(path.relative_to(state))) for path in paths}


def told(log: str) -> list[str]:
    """What a gateway and its entrypoint logged, without times and numbers, sorted. A busy host delays the warm-up of
    the model, which OpenClaw then logs."""
    plain = re.sub(r"\x1b\[\d+m|\d{4}-\d\d-\d\dT[\d:.+Z]+(00:00)?", "", log)
    lines = [
        re.sub(r"chatcmpl_\S+|[0-9a-f]{8}-[0-9a-f-]{27}|\d+(\.\d+)?(ms|s)?", "#", line).strip()
        for line in plain.splitlines()
    ]
    differing = ("park.waiting", "pre-warmed", "model warmup timed out")
    return sorted(line for line in lines if not any(text in line for text in differing))


def test_a_prewarmed_start_leaves_what_a_cold_one_leaves(session_home: Path, cold: Gateway) -> None:
    """The same conversation from nothing: the same files in the state, and the same lines in the log."""
    with gateway(session_home, "prewarmed") as made:
        begin(made, TENANT)
        assert "blue" in made.says("please remember blue")
        assert "blue" in made.says("what is my colour?")
        assert made.stop() == 0

        assert names(made.state) == names(cold.state)
        assert told(made.log()) == told(cold.log())


@pytest.mark.parametrize(
    ("entry", "count"),
    [
        ("file:///opt/openclaw/node_modules/openclaw/dist/gone.js", "missing"),
        ("file:///run/claw/throws.mjs", "failed"),
        ("file:///run/claw/broken.mjs", "failed"),
    ],
)
def test_a_stale_list_costs_speed_and_never_truth(session_home: Path, cold: Gateway, entry: str, count: str) -> None:
    """A module that is not there or does not load is counted, and the tenant gets the right answer all the same."""
    modules = session_home / f"modules-{count}-{Path(entry).stem}.list"
    with gateway(session_home, "entrypoint") as other:
        other.start()
        good = podman("exec", other.name, "cat", "/opt/claw/modules.list")
    modules.write_text(f"{entry}\n{good}\n")
    try:
        with gateway(
            session_home, "prewarmed", state=cold.state, extra=[f"--volume={modules}:/opt/claw/modules.list:ro"]
        ) as made:
            (made.values / "throws.mjs").write_text("throw new Error('sesame')\n")
            (made.values / "broken.mjs").write_text("export {\n")
            begin(made, TENANT)

            assert "blue" in made.says("what is my colour?")
            [waiting] = made.events("park.waiting")
            assert waiting[count] == 1
            assert waiting["imported"] == len(good.splitlines())
            assert made.stop() == 0
    finally:
        modules.unlink()


def test_a_tenant_that_cannot_be_seeded_ends_the_waiter(session_home: Path) -> None:
    """78, as in a cold start, with the entrypoint's own reason in the log, and no gateway."""
    with gateway(session_home, "prewarmed") as made:
        made.start()
        made.wait()
        made.bring({**TENANT, "NOT_ALLOWED": "x"})
        made.open_gate()

        assert made.ended() == 78
        assert "NOT_ALLOWED" in made.events("seed.failed")[0]["message"]


def plugins(made: Gateway) -> set[str]:
    """What the gateway says that it has loaded."""
    [line] = re.findall(r"http server listening \(\d+ plugins: ([a-z, -]+);", made.log())
    return set(line.split(", "))


@pytest.mark.parametrize("tier", ["entrypoint", "prewarmed"])
def test_a_workload_may_name_the_extensions_that_are_looked_through(
    session_home: Path, cold: Gateway, tier: str
) -> None:
    """Named ones are loaded, the channel plugins too, others are not, and nobody forgets a colour over it; without the
    value the same state finds them all again."""
    with gateway(session_home, tier, state=cold.state) as made:
        begin(made, {**TENANT, "CLAW_BUNDLED_EXTENSIONS": "browser, memory-core"})
        assert "blue" in made.says("what is my colour?")
        assert plugins(made) == {"browser", "matrix", "memory-core", "whatsapp"}
        assert "openKeyedStore" not in made.log()
        assert made.events("discovery.limited")[0]["extensions"] == ["browser", "memory-core"]
        assert made.stop() == 0

        with gateway(session_home, tier, state=made.state) as later:
            begin(later, TENANT)
            assert "blue" in later.says("what is my colour?")
            assert plugins(later) == plugins(cold)
            assert plugins(later) > plugins(made)


def refusal(made: Gateway, model: str) -> int:
    """Status of a turn that asks for a model."""
    body = {"model": "openclaw/default", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {CANARY}", "Content-Type": "application/json", "x-openclaw-model": model}
    request = urllib.request.Request(f"{made.endpoint}/v1/chat/completions", json.dumps(body).encode(), headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    refused.value.close()
    return int(refused.value.code)


def test_a_provider_that_a_key_is_for_is_there_all_the_same(session_home: Path) -> None:
    """With a choice that does not name it, OpenRouter's models are known and asked for (there is no network to answer
    from), and a model of nobody is still said to be unknown."""
    with gateway(session_home, "prewarmed") as made:
        begin(made, {**TENANT, "OPENROUTER_API_KEY": "none", "CLAW_BUNDLED_EXTENSIONS": "browser"})

        assert refusal(made, "nobody/nothing") == 404
        assert refusal(made, "openrouter/openai/gpt-4o") not in (404, 500)
        assert "provider=openrouter" in made.log()


def test_a_name_that_is_no_extension_is_refused(session_home: Path) -> None:
    """A typing error is told at once, not found weeks later in a missing tool."""
    with gateway(session_home, "entrypoint") as made:
        made.start()
        made.bring({**TENANT, "CLAW_BUNDLED_EXTENSIONS": "brwoser"})
        made.open_gate()

        assert made.ended() == 78
        assert "brwoser" in made.events("seed.failed")[0]["message"]
