"""The seams: what the services need of the outside world, as protocols.

An adapter (`engine/`, `objects/`, `db/`) implements one of these; `tests/contracts/` holds one conformance suite for
each, run on the fake and on the real thing. Services never see podman, boto3 or sqlite3.
"""

from claw_runtime.ports.answers import AnswerRow, AnswerStore
from claw_runtime.ports.clock import Clock
from claw_runtime.ports.engine import (
    LIVE,
    PAUSE_SECONDS,
    Bind,
    Container,
    ContainerSpec,
    ContainerState,
    Engine,
    EngineInfo,
    ExecResult,
    HostFacts,
    Image,
    Lines,
    Network,
    Usage,
)
from claw_runtime.ports.events import Event, EventStore
from claw_runtime.ports.fence import Fence, NoFence
from claw_runtime.ports.images import ImageTool
from claw_runtime.ports.ledger import (
    CRASH_LOOP,
    TIERS,
    Ledger,
    PoolRow,
    SlotRow,
    SlotState,
    TenantRow,
    TenantState,
    Tier,
)
from claw_runtime.ports.memory import KnownHead, StoreMemory
from claw_runtime.ports.objects import (
    AmbiguousWrite,
    Capabilities,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    PreconditionFailed,
)
from claw_runtime.ports.prober import Prober
from claw_runtime.ports.secrets import Revealed, Secrets
from claw_runtime.ports.systemd import CLAW_UNIT, PODMAN_UNIT, ROUTER_UNIT, S3_UNIT, Systemd
from claw_runtime.ports.tokens import TokenRow, TokenStore
from claw_runtime.ports.upgrades import MoveRow, MoveState, UpgradeRow, UpgradeState, UpgradeStore

__all__ = [
    "CLAW_UNIT",
    "CRASH_LOOP",
    "LIVE",
    "PAUSE_SECONDS",
    "PODMAN_UNIT",
    "ROUTER_UNIT",
    "S3_UNIT",
    "TIERS",
    "AmbiguousWrite",
    "AnswerRow",
    "AnswerStore",
    "Bind",
    "Capabilities",
    "Clock",
    "Container",
    "ContainerSpec",
    "ContainerState",
    "Engine",
    "EngineInfo",
    "Event",
    "EventStore",
    "ExecResult",
    "Fence",
    "HostFacts",
    "Image",
    "ImageTool",
    "KnownHead",
    "Ledger",
    "Lines",
    "MoveRow",
    "MoveState",
    "Network",
    "NoFence",
    "ObjectInfo",
    "ObjectMissing",
    "ObjectStore",
    "PoolRow",
    "PreconditionFailed",
    "Prober",
    "Revealed",
    "Secrets",
    "SlotRow",
    "SlotState",
    "StoreMemory",
    "Systemd",
    "TenantRow",
    "TenantState",
    "Tier",
    "TokenRow",
    "TokenStore",
    "UpgradeRow",
    "UpgradeState",
    "UpgradeStore",
    "Usage",
]
