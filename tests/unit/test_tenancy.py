"""A tenant's places are its own: distinct ids never meet, and an id that could is refused."""

import re
from pathlib import Path

import pytest
from claw_runtime.errors import InvalidTenantId
from claw_runtime.tenancy import Keys, Layout, TenantId, beat_key, container_name, owner_of, tenant_id
from hypothesis import assume, given
from hypothesis import strategies as st

LAYOUT = Layout(home=Path("/h"), run=Path("/r"))
IDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
BAD = [
    "../x",
    "a/b",
    "-x",
    "x-",
    "",
    "a" * 41,
    "a" * 300,
    "Alice",
    "ålice",
    "alice\n",
    "\nalice",
    " alice",
    "a b",
    "a.b",
]
BAD += ["a_b", "a\0", "..", ".", "a\\b", "%2e%2e", "१२", "a:b"]


def places(tenant: TenantId) -> list[Path]:
    """Every directory that belongs to a tenant."""
    return [LAYOUT.kept_tree(tenant), LAYOUT.staging(tenant), LAYOUT.logs(tenant), LAYOUT.secrets(tenant)]


@pytest.mark.parametrize("text", BAD, ids=ascii)
def test_a_bad_id_is_refused(text: str) -> None:
    """Whatever could climb, nest, hide or be mistaken is no id; the message says the rule and a good example."""
    with pytest.raises(InvalidTenantId) as caught:
        tenant_id(text)
    assert caught.value.why
    assert caught.value.hint
    assert len(caught.value.brief) < 300


@given(IDS)
def test_a_good_id_is_kept_as_it_is(text: str) -> None:
    """An id is never rewritten."""
    assert tenant_id(text) == text


@given(st.text())
def test_an_accepted_id_is_of_the_grammar(text: str) -> None:
    """Acceptance and the documented grammar are the same set."""
    try:
        accepted = tenant_id(text)
    except InvalidTenantId:
        assert not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", text)
    else:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", accepted)


@given(IDS, IDS)
def test_distinct_tenants_never_share_or_nest_a_directory(one: str, other: str) -> None:
    """No directory of one tenant is, or lies in, a directory of another, or of the host's own."""
    assume(one != other)
    own = [LAYOUT.ledger, LAYOUT.lock, LAYOUT.runtime_id, LAYOUT.workloads, LAYOUT.objects, LAYOUT.slot_root(one)]
    for ours in places(tenant_id(one)):
        for theirs in [*places(tenant_id(other)), *own]:
            assert ours != theirs
            assert ours not in theirs.parents
            assert theirs not in ours.parents


@given(IDS)
def test_the_places_of_one_tenant_do_not_nest(text: str) -> None:
    """Its tree, staging, logs and secrets lie side by side."""
    mine = places(tenant_id(text))
    assert all(a == b or (a not in b.parents and a != b) for a in mine for b in mine)
    assert len(set(mine)) == len(mine)


@given(IDS, IDS, st.integers(0, 10**12 - 1), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_distinct_tenants_never_share_a_key_or_a_prefix(one: str, other: str, generation: int, sha256: str) -> None:
    """Listing, reading or deleting one tenant's prefix never meets another's key."""
    assume(one != other)
    ours, theirs = Keys(tenant_id(one)), Keys(tenant_id(other))
    names = theirs.head, theirs.key, theirs.manifest(generation, sha256), theirs.pack(sha256), theirs.pin(generation)
    for key in (*names, theirs.blob(f"{sha256}.1"), f"{theirs.files}a", theirs.manifests, theirs.packs):
        assert key.startswith(theirs.prefix)
        assert owner_of(key) == theirs.tenant
        assert not key.startswith(ours.prefix)
        assert re.fullmatch(r"[A-Za-z0-9._/-]{1,900}", key)


def test_a_runtime_beats_outside_of_every_tenant() -> None:
    """No tenant's prefix holds it, whatever the runtime's id."""
    assert beat_key("alice") == "runtimes/alice"
    assert [owner_of(key) for key in ("runtimes/alice", "tenants/alice", "tenants/A/HEAD", "x/tenants/a/b")] == [
        None
    ] * 4


@given(
    st.lists(st.integers(0, 10**12 - 1), min_size=2, max_size=5, unique=True), st.text("0f", min_size=64, max_size=64)
)
def test_manifests_sort_by_generation(generations: list[int], sha256: str) -> None:
    """A listing, which is in byte order, is in the order of generations."""
    keys = Keys(tenant_id("alice"))
    assert [keys.manifest(n, sha256) for n in sorted(generations)] == sorted(
        keys.manifest(n, sha256) for n in generations
    )


@given(IDS, IDS, IDS)
def test_distinct_slots_have_distinct_names_and_directories(pool: str, one: str, other: str) -> None:
    """Two slots of a pool never share a container's name or a host directory."""
    assume(one != other)
    assert container_name(pool, one) != container_name(pool, other)
    ours, theirs = LAYOUT.slot(one), LAYOUT.slot(other)
    assert not {ours.state, ours.logs, ours.values} & {theirs.state, theirs.logs, theirs.values}
