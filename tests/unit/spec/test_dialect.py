"""Both dialects of workload files load, every odd form is named where it stands, and nothing is guessed beyond them."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.logs import MASK, mask
from claw_runtime.spec import loader, plan
from claw_runtime.spec.contract import Limits
from claw_runtime.spec.dialect import DURATIONS
from claw_runtime.spec.mappings import SyncMapping
from claw_runtime.spec.places import StateMount
from claw_runtime.spec.schema import schema
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = Path(__file__).resolve().parents[3] / "docs/examples"
OPENCLAW = EXAMPLES / "openclaw/workload-boilerhouse.yaml"
NANOCLAW = EXAMPLES / "nanoclaw/workload-boilerhouse.yaml"
HEAD = "id: a\nimage: b\n"
ENGINE = (
    "DOCKER_HOST names a container engine: a program that reaches one can leave its container; claw provides none, and"
    " no filter in front of one makes it safe"
)
NOWHERE = "is in no volume of the tenant's own, so it is not stored: give it one under volumes, with per_tenant: true"
REST = (
    "files that no mapping names are stored and restored too, so a list for another version of the program loses"
    " nothing: set rest: store to confirm this, or rest: ignore to leave them out"
)
UPLOAD = (
    "direction upload: at a claim the program starts without it; bidirectional brings it back, and is safe for"
    " databases too, which are stored as one consistent file"
)
KEYS = (
    "resources limits memory security user pool file_idle_ttl_ms minSize sync policy interval volumes custom name hooks"
    " warmth slot parked entrypoint"
)


def parse(text: str) -> loader.Document:
    """Load a text as `w.yaml`."""
    return loader.parse(textwrap.dedent(text), Path("w.yaml"))


def refused(text: str) -> InvalidSpec:
    """The loader's refusal."""
    with pytest.raises(InvalidSpec) as caught:
        parse(text)
    return caught.value


def told(document: loader.Document, *kinds: str) -> list[str]:
    """The hints as people see them, without the path."""
    return [
        document.told(hint).removeprefix(f"{document.path}:")
        for hint in document.hints
        if not kinds or hint.kind in kinds
    ]


def test_the_first_dialect_is_understood() -> None:
    """OpenClaw as boilerhouse writes it: every value arrives, and a test command stays a command."""
    workload = plan.make(loader.load(OPENCLAW))
    assert workload.probe_command == ("curl", "-f", "http://localhost:8080/health")
    assert (workload.port, workload.ready_path, workload.state_target) == (8080, "", "/home/node/.openclaw")
    assert workload.probe == plan.Probe(interval=30, timeout=5, retries=3, start_period=10)
    assert workload.ready_timeout == 10 + 3 * (30 + 5)
    assert workload.limits == Limits(memory=2 << 30, cpus=2.0)
    assert (workload.user, workload.read_only, workload.network) == ("1000", False, "private")
    assert (workload.pool.min_size, workload.pool.max_size, workload.pool.idle_timeout) == (2, 20, 600)
    assert [mapping.path for mapping in workload.mappings] == ["sessions", ""]
    assert workload.rest == "store"
    assert workload.tiers == ("created",)


def test_the_second_dialect_is_understood() -> None:
    """NanoClaw as boilerhouse writes it: milliseconds, seconds and MiB as plain numbers, `resources`, `comm`."""
    workload = plan.make(loader.load(NANOCLAW))
    assert workload.limits == Limits(memory=2048 << 20, cpus=2.0)
    assert (workload.pool.file_idle_ttl, workload.sync_policy.interval) == (600, 60)
    assert workload.probe == plan.Probe(interval=30, timeout=5, retries=3, start_period=30)
    assert (workload.user, workload.port) == ("1000", None)
    assert workload.extra_mounts == (
        StateMount(name="comm", subdirectory=".claw-volumes/comm", target="/app/store", read_only=False),
    )
    assert [mapping.path for mapping in workload.mappings[:4]] == [
        "sessions",
        "groups",
        "registered_groups.json",
        "state.json",
    ]
    assert workload.mappings[-1] == SyncMapping(
        path=".claw-volumes/comm",
        pattern="*.db*",
        direction="upload",
        mode="copy",
        view_path=".claw-volumes/comm",
    )


def test_the_hints_of_the_first_dialect() -> None:
    """Word for word: what an author of such a file reads."""
    assert told(loader.load(OPENCLAW)) == [
        "44:1: user 1000 is the host's own user, mapped into the container (keep-id): leave it out",
        "50:3: pool.idle_timeout: nothing puts a tenant to sleep by itself yet",
        "57:5: this host stores states, not a container: the endpoint is taken as http://127.0.0.1:9000",
        "59:5: anyone who can read this file has the keys: set CLAW_S3_ACCESS_KEY and CLAW_S3_SECRET_KEY instead",
        "61:5: rclone_flags has no effect: nothing here runs rclone",
        f"63:3: {REST}",
    ]


def test_the_hints_of_the_second_dialect() -> None:
    """Word for word; each odd form with the one to write."""
    assert told(loader.load(NANOCLAW), "deprecated") == [
        "29:3: security.user is written user",
        "31:1: resources is written deploy.resources",
        "34:13: memory 2048 is taken as MiB: write 2048m",
        "38:13: healthcheck.interval 30 is taken as seconds: write 30s",
        "39:12: healthcheck.timeout 5 is taken as seconds: write 5s",
        "41:17: healthcheck.start_period 30 is taken as seconds: write 30s",
        "46:3: pool.file_idle_ttl_ms is written file_idle_ttl: 10m",
        "78:15: sync.policy.interval 60000 is taken as milliseconds: write 1m",
    ]
    assert told(loader.load(NANOCLAW), "advice", "ignored") == [
        f"17:3: {ENGINE}",
        "23:5: /app/.env becomes a directory that holds values.json; it is not a file of variables",
        "29:3: user 1000 is the host's own user, mapped into the container (keep-id): leave it out",
        "46:3: pool.file_idle_ttl: nothing puts a tenant to sleep by itself yet",
        f"54:3: {REST}",
        f"58:7: groups is taken as /app/data/groups: /app/groups {NOWHERE}",
        f"71:7: {UPLOAD}",
    ]


def test_the_preferred_form_has_no_hints() -> None:
    """Whoever writes it as the hints say reads none again."""
    text = """
        id: nanoclaw
        image: nanoclaw:latest
        volumes: {state: {target: /app/data}, comm: {target: /app/store}, more: {target: /app/x, per_tenant: true}}
        deploy: {resources: {limits: {cpus: 2, memory: 2048m}}}
        healthcheck: {test: [CMD, node, x.js], interval: 30s, timeout: 5s, start_period: 30s}
        pool: {affinity_timeout: 30m}
        sync: {sink: {type: s3, bucket: states}}
        """
    assert parse(text).hints == ()


ODD = {
    "milliseconds": ("pool: {affinityTimeoutMs: 1800000}", "pool: {affinity_timeout: 30m}"),
    "camel": ("pool: {minSize: 2, maxSize: 4}", "pool: {min_size: 2, max_size: 4}"),
    "seconds": ("policy: {min_running_seconds: 300}", "policy: {min_running: 5m}"),
    "plain number": ("pool: {idle_timeout: 90}", "pool: {idle_timeout: 1m30s}"),
    "resources": ("resources: {limits: {pids: 9}}", "deploy: {resources: {limits: {pids: 9}}}"),
    "mebibytes": ("resources: {limits: {memory: 512}}", "deploy: {resources: {limits: {memory: 512m}}}"),
    "bytes": ("resources: {limits: {memory: 6291456}}", "deploy: {resources: {limits: {memory: 6m}}}"),
    "security": ("security: {user: node}", "user: node"),
    "milliseconds of sync": ("sync: {policy: {interval: 60000}}", "sync: {policy: {interval: 1m}}"),
    "hook": (
        "hooks: {post_claim: [{command: [x], timeout: 5}]}",
        "hooks: {post_claim: [{command: [x], timeout: 5s}]}",
    ),
    "slots of a former word": ("pool: {warmth: {slot: 2}}", "pool: {warmth: {created: 2}}"),
    "entrypoints of a former word": ("pool: {warmth: {parked: 2}}", "pool: {warmth: {entrypoint: 2}}"),
    "interpreters of a former word": ("pool: {warmth: {waiting: 2}}", "pool: {warmth: {interpreter: 2}}"),
    "own custom": (
        "volumes: {custom: [{name: x, target: /x, seed: s}]}",
        "volumes: {x: {target: /x, seed: s, per_tenant: true}}",
    ),
    "host custom": (
        "volumes: {custom: [{name: x, target: /x, source: /s}]}",
        "volumes: {x: {target: /x, source: /s}}",
    ),
}


@pytest.mark.parametrize(("odd", "better"), ODD.values(), ids=ODD)
def test_an_odd_form_means_the_same(odd: str, better: str) -> None:
    """It loads as its better form does, and has a hint that the better one has not."""
    read = parse(HEAD + odd)
    assert read.workload == parse(HEAD + better).workload
    assert {hint.mark.line for hint in read.hints if hint.kind == "deprecated"} == {3}
    assert told(parse(HEAD + better), "deprecated") == []


def test_the_former_words_of_the_tiers_are_read() -> None:
    """An older file has the same plan as one in today's words, a hint for each former word, and the same rests: what a
    tenant leaves behind was never counted by a word that a tier had."""
    label = (EXAMPLES.parents[1] / "images/openclaw-nix/contract.json").read_text()
    former = parse(HEAD + "pool: {warmth: {slot: 1, parked: 2, waiting: 3, prewarmed: 1, frozen: 4, tree: 5}}")
    today = parse(
        HEAD + "pool: {warmth: {created: 1, entrypoint: 2, interpreter: 3, prewarmed: 1, frozen: 4, tree: 5}}"
    )

    assert plan.make(former, label) == plan.make(today, label)
    assert plan.make(former, label).pool.warmth == plan.Warmth(
        created=1, entrypoint=2, interpreter=3, prewarmed=1, frozen=4, tree=5
    )
    assert told(former) == [
        "3:17: pool.warmth.slot is called created now",
        "3:26: pool.warmth.parked is called entrypoint now",
        "3:37: pool.warmth.waiting is called interpreter now",
    ]
    assert told(today) == []


REFUSALS = {
    "both words": (
        "pool: {warmth: {entrypoint: 1, parked: 1}}",
        "3:32: pool.warmth.parked and pool.warmth.entrypoint set the same",
    ),
    "a former word's mistake": ("pool: {warmth: {waiting: -1}}", "3:26: pool.warmth.interpreter: -1"),
    "both": (
        "resources: {limits: {cpus: 1}}\ndeploy: {resources: {limits: {cpus: 2}}}",
        "3:1: resources and deploy.resources set the same",
    ),
    "both keys": (
        "pool: {file_idle_ttl: 1m, file_idle_ttl_ms: 1}",
        "3:27: pool.file_idle_ttl_ms and pool.file_idle_ttl set",
    ),
    "moved mistake": ("resources:\n  limits: {cpus: two}", "4:18: deploy.resources.limits.cpus: 'two' is not a number"),
    "moved unknown": ("resources:\n  limit: {cpus: 2}", "4:3: unknown key 'deploy.resources.limit'"),
    "security": ("security: {user: 1000, privileged: true}", "3:1: unknown key 'security'"),
    "text in milliseconds": ("pool: {file_idle_ttl_ms: 10m}", "3:8: unknown key 'pool.file_idle_ttl_ms'"),
    "unit of a count": ("pool: {min_size_ms: 1}", "3:8: unknown key 'pool.min_size_ms'"),
    "negative": ("pool: {file_idle_ttl_ms: -5}", "3:26: pool.file_idle_ttl: '-5ms' is not a duration"),
    "tiny interval": (
        "sync: {policy: {interval: 60}}",
        "3:27: sync.policy.interval: 60 milliseconds are less than a second: write seconds as 60s",
    ),
    "memory that is bytes": (
        "deploy: {resources: {limits: {memory: 2048}}}",
        "3:39: deploy.resources.limits.memory: 2048",
    ),
    "deploy is a number": ("deploy: 3\nresources: {limits: {cpus: 1}}", "4:1: unknown key 'resources'"),
    "custom without a name": ("volumes: {custom: [{target: /x}]}", "3:20: volumes.custom[0] has no name"),
    "custom twice": ("volumes: {x: {source: /s, target: /a}, custom: [{name: x, target: /b}]}", "the volume 'x' again"),
    "custom is a number": ("volumes: {custom: [3]}", "volumes.custom[0] has no name"),
}


@pytest.mark.parametrize(("text", "brief"), REFUSALS.values(), ids=REFUSALS)
def test_an_odd_mistake_is_refused_where_it_was_written(text: str, brief: str) -> None:
    """What was moved keeps its line and column; what is no dialect is unknown."""
    assert brief in refused(HEAD + text).brief


def test_a_misplaced_key_is_refused_with_its_place() -> None:
    """The hint is the place, not a list of everything else."""
    assert refused(HEAD + "memory: 2g").hint == "it belongs to deploy.resources.limits.memory"
    assert refused(HEAD + "affinity_timeout: 1m").hint == "it belongs to pool.affinity_timeout"


def test_keys_of_a_store_stay_out_of_sight() -> None:
    """A file's keys are masked in logs from the moment it is read, and are in no refusal and no representation."""
    text = "sync: {sink: {type: s3, bucket: abc, access_key_id: canary-one, secret_access_key: canary-two%s}}"
    document = parse(HEAD + text % "")
    assert mask("canary-one canary-two") == f"{MASK} {MASK}"
    assert "canary" not in repr(document.workload)
    assert "4711" not in refused(HEAD + text.replace("canary-two%s", "4711")).brief


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text("azA_/$", max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*KEYS.split(), "post_claim", "timeout", "deploy"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_shape_breaks_the_dialect(data: Any) -> None:
    """Whatever stands where the dialect looks, the answer is a document or a refusal with a position."""
    import yaml

    whole = {"id": "a", "image": "b", **(data if isinstance(data, dict) else {"pool": data})}
    brief = "w.yaml:1:1: read"
    try:
        loader.parse(yaml.safe_dump(whole), Path("w.yaml"))
    except InvalidSpec as error:
        brief = error.brief
    assert re.match(r"w\.yaml:\d+:\d+: .", brief)


def test_every_duration_is_known_as_one() -> None:
    """The dialect's list of durations is the models' own."""
    whole = schema()
    number = {"type": "number"}
    found = {
        name
        for model, described in {"": whole, **whole["$defs"]}.items()
        for name, value in described["properties"].items()
        if model != "LimitsFile" and number in value.get("anyOf", ()) and not value.get("deprecated")
    }
    assert found == DURATIONS
