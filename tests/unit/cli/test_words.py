"""Words of the command line that are odd, endless or contradictory: an error of its own, and no traceback."""

from pathlib import Path

import pytest
from claw_runtime.spec import loader
from fakes.terminal import Call
from fakes.world import World

pytest_plugins = ["fakes.terminal_fixtures"]
pytestmark = pytest.mark.world(filled=True, served=True)

HALF = "\udcff"
"""What Python makes of an argument's byte that is no UTF-8."""


@pytest.mark.parametrize(
    "words",
    [
        ("claim", HALF),
        ("claim", "alice", "--pool", HALF),
        ("claim", "alice", "--metadata", f'{{"a": "{HALF}"}}'),
        ("claim", "alice", "--metadata", '{"a":' * 300 + "{}" + "}" * 300),
        ("claim", "alice", "--metadata", '{"a":' * 5000 + "{}" + "}" * 5000),
        ("release", HALF),
        ("status", HALF),
        ("logs", HALF),
        ("logs", "alice", "--tail", "9" * 30),
        ("logs", "alice", "--since", HALF),
        ("port", HALF),
        ("pool", "show", HALF),
        ("pool", "scale", "small", "--min", "9" * 30),
        ("sync", "cat", "alice", HALF),
        ("sync", "list", HALF),
        ("sync", "status", HALF),
        ("sync", "gc", "alice", "--grace", f"{'9' * 400}d"),
        ("sync", "import", "alice", f"/nowhere/{HALF}"),
        ("snapshot", "show", "alice", HALF),
        ("snapshot", "show", "alice", f"@{'9' * 400}d"),
        ("snapshot", "diff", "alice", f"@{'9' * 20}d"),
        ("snapshot", "tag", "alice", "latest", HALF),
        ("snapshot", "restore", "alice", "latest", "--path", HALF),
        ("token", "create", HALF),
        ("token", "create", "x", "--expires", f"{'9' * 400}d"),
        ("token", "revoke", HALF),
        ("upgrade", "small", "--image", HALF),
    ],
    ids=lambda words: " ".join(words)[:40].encode("ascii", "replace").decode(),
)
def test_no_name_or_number_is_a_traceback(claw: Call, words: tuple[str, ...]) -> None:
    """Bytes that are no UTF-8, numbers without end, nesting without end: an error with its exit code."""
    claw("claim", "alice")

    done = claw(*words)

    assert done.code in (2, *range(10, 41)), done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err


class TestAnotherPool:
    @pytest.fixture(autouse=True)
    def _two(self, world: World) -> None:
        world.pools.put(loader.parse(world.text.replace("id: small", "id: two"), Path("two.yaml")))

    def test_a_running_tenant_is_not_claimed_from_another_pool(self, claw: Call) -> None:
        """An error of the class `conflict` says where it runs, and what to do; the tenant runs on."""
        claw("claim", "alice", "--pool", "small")

        refused = claw("claim", "alice", "--pool", "two", "-o", "json")

        assert (refused.code, refused.error["slug"]) == (37, "conflict")
        assert refused.error["message"] == "tenant 'alice' runs in pool 'small'"
        assert refused.error["hint"].startswith("claw-runtime release alice, then")
        assert claw("status", "alice", "-o", "json").json["poolId"] == "small"

    def test_a_released_tenant_is(self, claw: Call) -> None:
        """Its state goes with it."""
        claw("claim", "alice", "--pool", "small")
        claw("release", "alice")

        assert claw("claim", "alice", "--pool", "two").code == 0

    def test_a_claim_that_names_no_pool_finds_the_running_tenant(self, claw: Call) -> None:
        """Only a tenant that does not run needs a pool, when there are two."""
        claw("claim", "alice", "--pool", "two")

        assert claw("claim", "alice").code == 0
        assert claw("claim", "bob").code == 19
