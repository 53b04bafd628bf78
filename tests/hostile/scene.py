"""A real daemon on real Podman with neighbours, and one tenant that attacks."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claw_runtime.tenancy import Layout
from fakes.daemon import CLI, Daemon
from hostile.attacks import Attack
from hostile.flood import flood
from hostile.neighbours import Neighbours, Seen

HOSTILE: Final = "mallory"
WORKLOAD: Final = """
id: small
image: {image}
ports: [{{container: 8080}}]
healthcheck: {{path: /healthz, ready_timeout: 60s}}
volumes: {{state: {{target: /state}}, logs: {{target: /logs}}}}
pool: {{min_size: {waiting}, max_size: {most}, affinity_timeout: 0, warmth: {{created: {waiting}}}}}
sync: {{policy: {{interval: 2s}}}}
"""
WAITING: Final = 3
VISITORS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the neighbours saw during an attack, and how it ended.

    Attributes:
        ended: How the hostile tenant's release ended: `saved`, `kept` with a named error, or what went wrong.
        broken: Promises that do not hold; empty when all do.
    """

    attack: str
    seen: Seen
    ended: str
    requests: str
    broken: tuple[str, ...]


class Scene:
    """Neighbours that run, and a hostile tenant that is claimed anew for each attack."""

    def __init__(self, daemon: Daemon, neighbours: Neighbours) -> None:
        self._daemon, self.neighbours = daemon, neighbours

    def quiet(self, seconds: float) -> Seen:
        """The neighbours alone."""
        return self.neighbours.watch(seconds, VISITORS)

    def attacked(self, attack: Attack, seconds: float) -> Result:
        """The neighbours while one attack is made, the end of the attacker, and whether it can come back."""
        self._daemon.ok("claim", HOSTILE)
        with ExitStack() as stack:
            asked = stack.enter_context(self._requests(attack)) if attack.requests else None
            if attack.script:
                stack.enter_context(self._running(attack.script))
            seen = self.neighbours.watch(seconds, VISITORS)
        ended, broken = self._end()
        broken += [f"a neighbour failed: {failure}" for failure in seen.failures]
        requests = ""
        if asked:
            requests = f"{asked['made']} requests, {asked['refused']} refused"
            broken += [f"{asked['failed']} answers of 500"] if asked["failed"] else []
        if "Traceback" in self._daemon.log:
            broken.append("a traceback in the daemon's log")
        return Result(attack=attack.name, seen=seen, ended=ended, requests=requests, broken=tuple(broken))

    def _end(self) -> tuple[str, list[str]]:
        """Release the attacker as an operator would. What it did to its own tree may keep it from being saved, with an
        error that says so; then it goes without."""
        answer = self._daemon.cli("release", HOSTILE)
        ended, broken = "saved", list[str]()
        if answer.code:
            ended = answer.err.strip().splitlines()[0]
            if answer.code in (1, 2, 70) or not ended:
                broken.append(f"the release ended with {answer.code}: {answer.err.strip()}")
        status = self._daemon.ok("status", HOSTILE, "-o", "json").json
        if status["state"] not in ("cold", "kept", "parked"):
            broken.append(f"after its release it is {status['state']}")
        again = self._daemon.cli("claim", HOSTILE)
        if again.code:
            broken.append(f"it cannot be claimed again: {again.err.strip()}")
        else:
            self._daemon.cli("exec", HOSTILE, "--", "sh", "-c", "chmod -R 700 /state /logs; rm -rf /state/* /logs/*")
            self._daemon.cli("release", HOSTILE)
        return ended, broken

    @contextmanager
    def _running(self, script: str) -> Iterator[None]:
        """The script in the tenant's container, until the block ends; the container's end ends what is left of it."""
        process = subprocess.Popen(
            [*CLI, "exec", HOSTILE, "--", "sh", "-c", script],
            env=self._daemon.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)

    @contextmanager
    def _requests(self, attack: Attack) -> Iterator[Counter[str]]:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self._daemon.log)
        assert found, self._daemon.log[-2000:]
        token = self._daemon.ok("token", "create", HOSTILE, "--tenant", HOSTILE).out.strip()
        paths = [f"/api/v1/tenants/{HOSTILE}/{path}" for path in attack.requests]
        try:
            with flood(("127.0.0.1", int(found[1])), token, paths) as counts:
                yield counts
        finally:
            self._daemon.ok("token", "revoke", HOSTILE)


@contextmanager
def scene(home: Path, image: str, count: int) -> Iterator[Scene]:
    """A daemon below `home`, whose store is a directory, with so many neighbours; everything ends with the block."""
    (home / "store").mkdir()
    workload = home / "small.yaml"
    workload.write_text(WORKLOAD.format(image=image, waiting=WAITING, most=count + VISITORS + WAITING + 1))
    settings = {"CLAW_BUCKET": f"file://{home}/store", "CLAW_LISTEN": "127.0.0.1:0"}
    daemon = Daemon(home / "d", [workload], settings)
    try:
        daemon.start(ready=WAITING)
        layout = Layout(daemon.home, daemon.home / "run")
        neighbours = Neighbours(layout, count, lambda tenant, text: _execute(daemon, tenant, text))
        neighbours.settle()
        yield Scene(daemon, neighbours)
    finally:
        daemon.close()


def _execute(daemon: Daemon, tenant: str, script: str) -> None:
    daemon.ok("exec", tenant, "--", "sh", "-c", script)


def said(line: str) -> None:
    """A line for whoever waits."""
    print(line, file=sys.stderr, flush=True)
