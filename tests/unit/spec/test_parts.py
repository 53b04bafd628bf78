"""Pool, probes, hooks, networks, users, volumes and stores: what a file may say of them, and what that means."""

import json
import textwrap
from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.objects.open import open_store
from claw_runtime.spec import contract, loader, plan
from claw_runtime.spec.sink import Sink, common_sink
from claw_runtime.tenancy import tenant_id

REPOSITORY = Path(__file__).resolve().parents[3]
CONTRACT = (REPOSITORY / "images/openclaw-nix/contract.json").read_text()
HEAD = "id: a\nimage: b\n"
STATE = "volumes: {state: {target: /s}}\n"
TEST = "healthcheck: {test: [CMD, check]}\n"
SINK = "sync: {{sink: {{type: s3, bucket: abc{}}}}}\n"


def document(text: str, path: str = "w.yaml") -> loader.Document:
    """A file of this text."""
    return loader.parse(HEAD + textwrap.dedent(text), Path(path))


def made(text: str, label: str | None = CONTRACT) -> plan.Workload:
    """The plan of this text with the OpenClaw image's contract, or another."""
    return plan.make(document(text), label)


def refused(text: str, label: str | None = CONTRACT) -> str:
    """Position and words of the refusal."""
    with pytest.raises(InvalidSpec) as caught:
        made(text, label)
    return caught.value.brief.removeprefix("w.yaml:")


# --- pool ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "slots", "warm"),
    [
        ("", (1, 0), 1),
        ("pool: {min_size: 3}", (3, 0), 3),
        ("pool: {min_size: 0}", (0, 0), 0),
        ("pool: {warmth: {entrypoint: 2}}", (0, 2), 2),
        ("pool: {min_size: 3, warmth: {entrypoint: 2}}", (1, 2), 3),
        ("pool: {warmth: {created: 4, entrypoint: 2}}", (4, 2), 6),
        ("pool: {min_size: 6, warmth: {created: 4, entrypoint: 2}}", (4, 2), 6),
        ("pool: {warmth: {created: 0}}", (0, 0), 0),
    ],
)
def test_min_size_is_the_sum_of_the_tiers(text: str, slots: tuple[int, int], warm: int) -> None:
    """Whichever of the two is left out follows from the other."""
    pool = made(text).pool
    assert ((pool.warmth.created, pool.warmth.entrypoint), pool.min_size) == (slots, warm)


def test_trees_are_kept_for_as_many_as_there_are_containers() -> None:
    """Unless the file says how many, or that nothing is kept."""
    assert made("pool: {max_size: 7}").pool.warmth.tree == 7
    assert made("pool: {warmth: {tree: 3}}").pool.warmth.tree == 3
    assert made("pool: {affinity_timeout: 0}").pool.warmth == plan.Warmth(created=1)
    assert made("").pool.affinity_timeout == 600


WRONG = {
    "sum": (
        "pool: {min_size: 2, warmth: {created: 2, entrypoint: 1}}",
        "3:18: pool.min_size: min_size is 2 and the tiers",
    ),
    "less than tiers": ("pool: {min_size: 1, warmth: {entrypoint: 2}}", "3:18: pool.min_size: min_size is 1"),
    "too many": (
        "pool: {max_size: 2, warmth: {entrypoint: 3}}",
        "3:29: pool.warmth: 3 slots wait, more than max_size 2",
    ),
    "too many frozen": ("pool: {max_size: 2, warmth: {frozen: 3}}", "3:38: pool.warmth.frozen: 3 is more than"),
    "no affinity": ("pool: {affinity_timeout: 0, warmth: {frozen: 1}}", "pool.warmth.frozen: affinity_timeout 0"),
    "unknown tier": ("pool: {warmth: {hot: 1}}", "3:17: unknown key 'pool.warmth.hot'"),
    "fill": ("pool: {fill_concurrency: 0}", "3:26: pool.fill_concurrency"),
    "hook": ("hooks: {post_claim: [{command: echo}]}", "3:32: hooks.post_claim[0].command: 'echo' is not a list"),
    "no command": ("hooks: {post_claim: [{command: []}]}", "3:32: hooks.post_claim[0].command: the command is empty"),
    "hook's word": ("hooks: {post_claim: [{command: [x], on_error: ignore}]}", "3:47: hooks.post_claim[0].on_error"),
    "retries": (
        "hooks: {pre_release: [{command: [x], retries: 2}]}",
        "3:47: hooks.pre_release[0].retries: on_error is",
    ),
    "six retries": ("hooks: {pre_release: [{command: [x], on_error: retry, retries: 6}]}", "less than or equal to 5"),
    "one hook": ("hooks: {post_claim: {command: [x]}}", "3:21: hooks.post_claim: a mapping is not a list"),
    "drain": ("policy: {drain_timeout: 0}", "3:25: policy.drain_timeout"),
    "both checks": ("healthcheck: {path: /x, test: [CMD, x]}", "3:31: healthcheck.test: path, port and ignore_failing"),
    "no check": ("healthcheck: {test: [NONE]}", "3:21: healthcheck.test: NONE is not a check"),
    "bare test": ("healthcheck: {test: [curl, x]}", '3:21: healthcheck.test: write it as ["CMD", "program"'),
    "empty test": ("healthcheck: {test: [CMD]}", "3:21: healthcheck.test: write it as"),
    "text test": ("healthcheck: {test: curl x}", "3:21: healthcheck.test: 'curl x' is not a list"),
    "two lines": ("healthcheck: {test: [CMD-SHELL, a, b]}", "3:36: healthcheck.test[2]: CMD-SHELL takes one line"),
    "host": ("network_mode: host", "3:15: network_mode: 'host' cannot be: every tenant would reach"),
    "container": ("network_mode: container:x", "3:15: network_mode: 'container:x' cannot be: a tenant shares"),
    "shared": ("networks: [web]", "3:11: networks: 'web' cannot be: a network that containers share"),
    "two networks": ("networks: [default, none]", "3:11: networks: a container has one network"),
    "no network": ("networks: []", "3:11: networks: an empty list has no meaning"),
    "twice": ("network: none\nnetwork_mode: bridge", "4:15: network_mode: network sets the same"),
    "root": ("user: root", "3:7: user: 'root' cannot be: no container runs as root"),
    "zero": ("user: 0", "3:7: user: '0' cannot be"),
    "zero group": ('user: "0:0"', "3:7: user: '0:0' cannot be"),
    "no user": ("user: [1]", "3:7: user: a list is not a text"),
    "strange user": ("user: a b", "3:7: user: 'a b' is not a user"),
    "isolation": ("isolation: host-user", "3:12: isolation"),
    "runtime": ("runtime: ../x", "3:10: runtime"),
    "tenant": ("variables: {tenantId: x}", "3:23: variables.tenantId: tenantId is the tenant's id"),
    "chained": ('variables: {a: x, b: "${a}"}', "3:22: variables.b: uses ${a}: a variable's own text is plain"),
    "undeclared": (
        'variables: {a: x}\nenvironment: {B: "${b}"}',
        "4:18: environment.B: uses ${b}, which is not declared",
    ),
    "seed of logs": ("volumes: {logs: {target: /l, seed: x}}", "3:36: volumes.logs.seed: only a tenant's own files"),
    "seed outside": (
        "volumes: {state: {target: /l, seed: ../x}}",
        "3:37: volumes.state.seed: '../x' is not a directory",
    ),
    "own source": (
        "volumes: {x: {target: /l, source: /x, per_tenant: true}}",
        "3:35: volumes.x.source: a host directory",
    ),
    "own state": ("volumes: {state: {target: /l, per_tenant: true}}", "3:43: volumes.state.per_tenant: volume 'state'"),
    "hidden": ("volumes: {comm: {target: /state/x}}", "3:26: volumes.comm overlaps with state at /state"),
    "prefix": (
        SINK.format(", prefix: x/"),
        "3:46: sync.sink.prefix: 'x/' is not accepted: every tenant's objects are",
    ),
    "bucket": ("sync: {sink: {type: s3, bucket: A}}", "3:33: sync.sink.bucket: 'A' is not a bucket's name"),
    "kind of store": ("sync: {sink: {type: gcs, bucket: abc}}", "3:21: sync.sink.type"),
    "endpoint": (SINK.format(", endpoint: minio"), "sync.sink.endpoint: 'minio' is not a URL"),
    "keys in endpoint": (SINK.format(', endpoint: "http://a:b@c"'), "is not a URL: write it as https"),
    "port of endpoint": (SINK.format(', endpoint: "http://a:b"'), "is not a URL"),
    "one key": (SINK.format(", access_key_id: x"), "3:53: sync.sink.access_key_id: access_key_id without secret"),
    "mapping": ("sync: {mappings: [{path: x, direction: both}]}", "3:40: sync.mappings[0].direction"),
}


@pytest.mark.parametrize(("text", "brief"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused_at_its_place(text: str, brief: str) -> None:
    """Line, column and reason."""
    assert brief in refused(text)


def test_a_tier_needs_an_image_that_offers_it() -> None:
    """A count for slots that could never be made is refused at it; without a contract there is only `created`."""
    stripped = json.loads(CONTRACT)
    stripped.pop("prewarm", None)
    stripped["capabilities"].pop("prewarm", None)
    brief = refused("pool: {warmth: {prewarmed: 1}}", json.dumps(stripped))
    assert brief == "3:28: pool.warmth.prewarmed: no slot of this workload can wait as prewarmed"
    assert "pool.warmth.entrypoint" in refused(STATE + TEST + "pool: {warmth: {entrypoint: 1}}", None)
    assert "pool.warmth.entrypoint" in refused("command: [x]\npool: {warmth: {entrypoint: 1}}")


def test_the_tiers_are_those_of_the_image() -> None:
    """A command takes the waiting process's place, and other values hide the start gate from it."""
    assert made("").tiers == contract.promise(CONTRACT, "x").tiers
    assert made("").tiers[:2] == ("created", "entrypoint")
    assert made("volumes: {secrets: {target: /run/claw}}").tiers == made("").tiers
    assert made("command: [x]").tiers == ("created",)
    assert made("volumes: {secrets: {target: /elsewhere}}").tiers == ("created",)
    assert made(STATE + TEST, None).tiers == ("created",)


# --- probes -------------------------------------------------------------------------------------------------------


def test_a_test_command_stands_in_for_the_path() -> None:
    """With it a workload without a contract needs no port; with a contract it wins over the image's path."""
    bare = made(STATE + "healthcheck: {test: [CMD-SHELL, 'x | y']}", None)
    assert (bare.probe_command, bare.port, bare.ready_path) == (("/bin/sh", "-c", "x | y"), None, "")
    whole = made(TEST)
    assert (whole.probe_command, whole.port, whole.ready_path) == (("check",), 18789, "")
    assert made("").probe_command is None


@pytest.mark.parametrize(
    ("text", "with_contract", "without"),
    [
        ("", 120, 60),
        (", timeout: 9s", 120, 60),
        (", ready_timeout: 7s, retries: 5", 7, 7),
        (", retries: 2", 70, 70),
        (", start_period: 1m, interval: 10s, timeout: 1s", 93, 93),
    ],
)
def test_how_long_a_claim_waits(text: str, with_contract: float, without: float) -> None:
    """As said; or as Compose would count; or as the image says; or a minute."""
    health = f"healthcheck: {{path: /x{text}}}"
    assert made(health).ready_timeout == with_contract
    assert made(STATE + "ports: [{container: 1}]\n" + health, None).ready_timeout == without


# --- hooks, policy, networks --------------------------------------------------------------------------------------


def test_hooks_arrive_in_order_with_their_defaults() -> None:
    """Thirty seconds, and an error ends the claim; retry has three attempts more unless it says how many."""
    hooks = made(
        """\
        hooks:
          post_claim: [{command: [a, b]}, {command: [c], on_error: retry}]
          pre_release: [{command: [d], on_error: retry, retries: 1, timeout: 1m}, {command: [e], on_error: continue}]
        """
    ).hooks
    assert hooks == plan.Hooks(
        post_claim=(plan.Hook(command=("a", "b")), plan.Hook(command=("c",), on_error="retry", retries=3)),
        pre_release=(
            plan.Hook(command=("d",), on_error="retry", retries=1, timeout=60),
            plan.Hook(command=("e",), on_error="continue"),
        ),
    )


def test_the_drain_timeout_is_the_stop_timeout() -> None:
    """What the file says, else what the image says; Podman counts whole seconds."""
    assert made("policy: {drain_timeout: 1500ms, min_warm: 2m}").stop_timeout == 2
    assert made("policy: {min_warm: 2m}").policy == plan.Policy(min_warm=120, drain_timeout=330)
    assert made("").stop_timeout == 330
    assert made(STATE + TEST, None).policy.drain_timeout == 10


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("", "private"),
        ("network: none", "none"),
        ("network_mode: bridge", "private"),
        ("network_mode: none", "none"),
        ("networks: [default]", "private"),
        ("networks: [bridge]", "private"),
        ("networks: [none]", "none"),
    ],
)
def test_each_way_to_say_a_network(text: str, network: str) -> None:
    """Compose's words become ours, without a hint."""
    assert made(text).network == network
    assert document(text).hints == ()


@pytest.mark.parametrize("user", ["1000", '"1000"', "node", "node:node", '"1000:1000"'])
def test_a_user_is_taken_and_mapped(user: str) -> None:
    """Any but root, with a hint that it is the host's own."""
    read = document(f"user: {user}")
    assert read.workload.user == user.strip('"')
    assert ["keep-id" in hint.what for hint in read.hints] == [True]


# --- variables and volumes ----------------------------------------------------------------------------------------


def test_declared_variables_are_filled_in() -> None:
    """In plain variables and in values, beside the tenant's id, each once."""
    workload = made(
        """\
        variables: {model: m-1, area: Etc, n: 3}
        environment: {TZ: "${area}/GMT-${n}", CLAW_MODEL_ID: "${model}-${tenantId}"}
        """
    )
    assert workload.environment == {"TZ": "Etc/GMT-3"}
    assert workload.values_for(tenant_id("bob")) == {"CLAW_MODEL_ID": "m-1-bob"}


def test_the_daemons_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a name that is set there."""
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")
    assert "which is not declared" in refused('environment: {A: "${SECRET_OF_THE_HOST}"}')


def test_a_tenants_own_directories_are_in_its_state() -> None:
    """comm and per_tenant volumes have a directory there and a mount point of their own; seeds know where they go."""
    workload = made(
        """\
        volumes:
          state: {target: /state, seed: first}
          comm: {target: /comm, read_only: true}
          groups: {target: /groups, per_tenant: true, seed: /srv/groups}
        """
    )
    assert workload.extra_mounts == (
        plan.StateMount(name="comm", subdirectory=".claw-volumes/comm", target="/comm", read_only=True),
        plan.StateMount(name="groups", subdirectory=".claw-volumes/groups", target="/groups", read_only=False),
    )
    assert workload.seeds == (
        plan.Seed(source=Path("first"), subdirectory=""),
        plan.Seed(source=Path("/srv/groups"), subdirectory=".claw-volumes/groups"),
    )
    assert workload.binds == ()


# --- stores -------------------------------------------------------------------------------------------------------


def test_a_sink_is_a_store_that_can_be_opened() -> None:
    """Endpoint and region are in the URL, keys are boxed beside it."""
    text = SINK.format(", region: eu-1, endpoint: 'https://s3.example.org', access_key_id: one, secret_access_key: two")
    found = common_sink({"a": document(text)})
    assert found is not None
    assert found.url == "s3://abc?endpoint=https%3A%2F%2Fs3.example.org&region=eu-1"
    assert (found.access_key and found.access_key.reveal(), found.secret_key and found.secret_key.reveal()) == (
        "one",
        "two",
    )
    assert "two" not in repr(found)
    assert open_store(found.url, access_key=found.access_key, secret_key=found.secret_key).url.startswith("s3://abc")


def test_a_containers_name_for_the_host_is_the_host() -> None:
    """The one who stores is not in a container."""
    text = SINK.format(', endpoint: "http://host.containers.internal:9000/x"')
    assert common_sink({"a": document(text)}) == Sink(url="s3://abc?endpoint=http%3A%2F%2F127.0.0.1%3A9000%2Fx")


def test_one_daemon_has_one_store() -> None:
    """Workloads agree, or say nothing; two stores are refused at the second, and so are other keys."""
    one, same, none = document(SINK.format("")), document(SINK.format(""), "same.yaml"), document("", "none.yaml")
    assert common_sink({"n": none, "a": one, "b": same}) == Sink(url="s3://abc")
    assert common_sink({"n": none}) is None
    other = document(SINK.format("d"), "other.yaml")
    with pytest.raises(InvalidSpec, match=r"^other\.yaml:3:14: sync\.sink is another store than that of") as caught:
        common_sink({"a": one, "b": other})
    assert "s3://abcd" in caught.value.why
    assert "CLAW_BUCKET" in caught.value.hint
    keys = document(SINK.format(", access_key_id: one, secret_access_key: two"), "keys.yaml")
    with pytest.raises(InvalidSpec, match=r"^keys\.yaml:3:14: sync\.sink has other keys"):
        common_sink({"a": one, "b": keys})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sync: {policy: {on_claim: false}}", "on_claim false is ignored"),
        ("sync: {policy: {on_release: false}}", "on_release false is ignored"),
        ("sync: {policy: {manual: false}}", "manual false is ignored"),
    ],
)
def test_no_policy_leaves_a_state_behind(text: str, what: str) -> None:
    """It is read, ignored, and reported."""
    assert [what in hint.what for hint in document(text).hints] == [True]
    assert made(text).sync_policy == plan.SyncPolicy()
