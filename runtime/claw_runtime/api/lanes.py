"""The lanes of the API: which requests share threads, how many run at once, and what share one tenant or token has.

A claim may wait minutes, a release drains and uploads, a log is followed for hours, a verification reads every object.
If they shared threads, forty of one kind would keep every other from its answer. So each route has a lane, and `LANES`
names it: there is no route outside the table.

In a lane one tenant and one token have a share, and some places are left for the host's own user. A request beyond
that waits for its turn, which tenants take one after the other, and is refused with 429 after `PATIENCE`. That refusal
comes late on purpose: a client that asks in a loop is slowed down, not served faster with errors.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

PATIENCE = 2.0
"""Seconds that a request over TCP waits for its turn."""

PATIENCE_LOCAL = 60.0
"""Seconds that a request of the host's own user waits for its turn."""

WAITING_MOST = 1000
"""Requests of one tenant (or of one token, for requests of no tenant) that may wait for their turn in one lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One kind of request.

    Attributes:
        slots: Requests that run at once, each in at most one thread.
        tenant: The most of them for one tenant.
        token: The most of them for one token.
        reserve: The places that only requests over the Unix socket may take.
        reads: Its requests change nothing and may last long: the end of the daemon ends them.
    """

    name: str
    slots: int
    tenant: int
    token: int
    reserve: int
    reads: bool = False


LOOKS = Lane(name="looks", slots=32, tenant=4, token=16, reserve=8)
"""What the daemon knows by itself: neither the store nor the engine is asked."""

CLAIMS = Lane(name="claims", slots=128, tenant=8, token=96, reserve=16)
"""Claims. One that waits for a slot of its pool leaves its place meanwhile."""

ENDINGS = Lane(name="endings", slots=64, tenant=8, token=48, reserve=8)
"""Releases and syncs."""

CHANGES = Lane(name="changes", slots=16, tenant=2, token=8, reserve=2)
"""Other changes of what is stored, which may take as long as a release."""

READERS = Lane(name="readers", slots=32, tenant=4, token=16, reserve=4)
"""Listings out of the object store, which may be slow, or not answer."""

STREAMS = Lane(name="streams", slots=24, tenant=4, token=12, reserve=4, reads=True)
"""Files and exports, which last as long as their reader takes."""

VERIFICATIONS = Lane(name="verifications", slots=4, tenant=1, token=2, reserve=1, reads=True)
"""What reads every object of a tenant again."""

FOLLOWERS = Lane(name="followers", slots=96, tenant=8, token=64, reserve=16, reads=True)
"""Logs that are followed."""

LOGS = Lane(name="logs", slots=16, tenant=4, token=8, reserve=4, reads=True)
"""Logs up to now."""

SETTINGS = Lane(name="settings", slots=16, tenant=2, token=8, reserve=4)
"""Changes of pools and workloads, and upgrades: the engine is asked about their images."""

_TENANT = "/api/v1/tenants/{tenant}"
_SNAPSHOT = f"{_TENANT}/snapshots/{{snapshot}}"
_POOL = "/api/v1/pools/{pool}"
_WORKLOAD = "/api/v1/workloads/{workload}"

LANES: Mapping[str, Lane | None] = {
    "GET /livez": None,  # answered by the event loop itself
    "GET /readyz": None,  # all that ask at once share one look (readiness.py)
    f"POST {_TENANT}/claim": CLAIMS,
    f"POST {_TENANT}/release": ENDINGS,
    f"POST {_TENANT}/sync": ENDINGS,
    f"GET {_TENANT}/status": LOOKS,
    f"GET {_TENANT}/container": LOOKS,
    f"GET {_TENANT}": LOOKS,
    "GET /api/v1/tenants": LOOKS,
    f"GET {_TENANT}/transfer": LOOKS,
    f"GET {_TENANT}/logs": LOGS,
    f"GET {_TENANT}/files": READERS,
    f"GET {_TENANT}/files/{{path}}": STREAMS,
    f"GET {_TENANT}/content": STREAMS,
    f"GET {_TENANT}/export": STREAMS,
    f"GET {_TENANT}/stored": READERS,
    f"DELETE {_TENANT}/stored": CHANGES,
    f"GET {_TENANT}/verify": VERIFICATIONS,
    "GET /api/v1/isolation": VERIFICATIONS,
    f"POST {_TENANT}/collect": CHANGES,
    f"POST {_TENANT}/import": CHANGES,
    f"GET {_TENANT}/snapshots": READERS,
    f"POST {_TENANT}/snapshots/recover": CHANGES,
    f"GET {_SNAPSHOT}": READERS,
    f"GET {_SNAPSHOT}/diff": READERS,
    f"POST {_SNAPSHOT}/pin": READERS,
    f"DELETE {_SNAPSHOT}/pin": READERS,
    f"POST {_SNAPSHOT}/restore": CHANGES,
    "GET /api/v1/pools": LOOKS,
    "POST /api/v1/pools": SETTINGS,
    f"GET {_POOL}": LOOKS,
    f"PUT {_POOL}": SETTINGS,
    f"PATCH {_POOL}": SETTINGS,
    f"DELETE {_POOL}": SETTINGS,
    f"POST {_POOL}/scale": SETTINGS,
    f"POST {_POOL}/drain": SETTINGS,
    f"POST {_POOL}/undrain": SETTINGS,
    f"POST {_POOL}/recycle": SETTINGS,
    f"GET {_POOL}/metrics": LOOKS,
    f"POST {_POOL}/upgrade": SETTINGS,
    f"GET {_POOL}/upgrade": LOOKS,
    f"POST {_POOL}/upgrade/resume": SETTINGS,
    f"POST {_POOL}/upgrade/abort": SETTINGS,
    "GET /api/v1/workloads": LOOKS,
    f"GET {_WORKLOAD}": LOOKS,
    f"PUT {_WORKLOAD}": SETTINGS,
    f"DELETE {_WORKLOAD}": SETTINGS,
    "GET /api/v1/activity": LOOKS,
    "GET /api/v1/recovery": LOOKS,
    "GET /api/v1/services": LOOKS,
    "GET /api/v1/routes": LOOKS,
    f"POST {_TENANT}/open": LOOKS,
    "GET /api/v1/tokens": LOOKS,
    "POST /api/v1/tokens": SETTINGS,
    "DELETE /api/v1/tokens/{name}": SETTINGS,
    "POST /api/v1/keys/rewrap": CHANGES,
}
"""Every route with its lane. A request that fits no row runs in `LOOKS`, where it finds its 404."""

_OF_TENANT = re.compile(r"/api/v1/tenants/([^/]+)(?:/.*)?", re.DOTALL)
_TRUE = frozenset({"1", "t", "true", "y", "yes", "on"})


def lane_of(method: str, path: str, query: bytes = b"") -> Lane | None:
    """The lane of a request; None for those that need none."""
    for verb, form, lane in _FORMS:
        if verb == method and form.fullmatch(path):
            return FOLLOWERS if lane is LOGS and _follows(query) else lane
    return LOOKS


def tenant_of(path: str) -> str | None:
    """The tenant that a path names."""
    found = _OF_TENANT.fullmatch(path)
    return found[1] if found else None


def _follows(query: bytes) -> bool:
    given = parse_qs(query.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=None).get("follow", [""])
    return given[-1].strip().lower() in _TRUE


def _form(path: str) -> re.Pattern[str]:
    inner = re.escape(path).replace(re.escape("{path}"), ".*")
    return re.compile(re.sub(r"\\\{[a-z]+\\\}", "[^/]+", inner), re.DOTALL)


def _forms() -> Iterator[tuple[str, re.Pattern[str], Lane | None]]:
    for row, lane in LANES.items():
        method, _, path = row.partition(" ")
        yield method, _form(path), lane


_FORMS = tuple(_forms())
