"""One host with the daemon's side of ingress over a scripted router."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from claw_runtime import settings
from claw_runtime.access.tokens import Tokens
from claw_runtime.concurrency import Workers
from claw_runtime.daemon.ingress import router_side
from claw_runtime.db.tokens import SqliteTokens
from claw_runtime.secrets.files import SecretFiles
from claw_runtime.tenancy import TenantId
from claw_runtime.tenants.drives.values import Values
from fakes.router import FakeRouter, until
from fakes.world import WORKLOAD, World

FLAGS = {"ingress": "127.0.0.1:8080", "ingress_url": "https://claw.example"}


class Host(World):
    """A world with ingress; `router` once `connect` was called. Wakes act at once, in the thread that hears them."""

    def __init__(self, home: Path, workload: str = WORKLOAD, **flags: str) -> None:
        chosen = {"home": home / "home", "run": home / "run", **(flags or FLAGS)}
        self.settings = settings.load(chosen, environ={}, system_file=home / "none")
        self.stopping, self.fence = threading.Event(), self
        self.router: FakeRouter | None = None
        self.threads_of_it: Sequence[threading.Thread] = ()
        super().__init__(home, workload=workload)

    def restart(self) -> None:
        super().restart()
        self.layout.run.mkdir(parents=True, exist_ok=True)
        self.tokens = Tokens(SqliteTokens(self.ledger.database), self.clock)
        side = router_side(
            self.settings,
            ledger=self.ledger,
            pools=self.pools,
            values=Values(SecretFiles(self.layout), self.layout),
            tokens=self.tokens,
            clock=self.clock,
        )
        self.link, self.routes, self.tickets = side.link, side.routes, side.tickets
        self.ingress = side.ingress(
            self.tenants, self.events.record, thaws=Workers("thaw", 0), claims=Workers("wake", 0)
        )
        self.wakes = self.ingress.wakes

    def fenced(self, tenant: TenantId) -> AbstractContextManager[None]:
        """As `ports.Fence`."""
        return self.link.fenced(tenant) if hasattr(self, "link") else nullcontext()

    def connect(self) -> FakeRouter:
        """A router, and the conversation with it."""
        self.router = FakeRouter(self.layout.router_socket)
        self.threads_of_it = self.ingress.run(self.stopping)
        until(lambda: self.router and self.router.tables)
        return self.router

    def close(self) -> None:
        self.stopping.set()
        self.link.changed.set()
        self.link.close()
        if self.router:
            self.router.close()
        for thread in self.threads_of_it:
            thread.join(10)
        super().close()

    def heard(self, tenant: str) -> str:
        """Names of what happened to the tenant."""
        return " ".join(event.kind for event in self.events.newest(tenant=tenant))
