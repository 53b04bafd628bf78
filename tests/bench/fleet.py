"""The peer that manages many gateways on one host: `openclaw fleet`, of a release that has it, over our own gateway.

Its command line is installed once from npm into the user's cache; its node is that of our image. Its cells run our
image's gateway, so that only the manager differs. On a host without controllers, the limits that it insists on are
removed between Podman and the OCI runtime, as ours are dropped. Everything else is its own.
"""

import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

VERSION = "2026.9.6"
BASE = "localhost/openclaw-nix:dev"
PACKAGE = "/opt/openclaw/node_modules/openclaw"
NODE = "/opt/node"
INSTALL = 180.0  # seconds that npm may take
PATIENCE = 120.0  # seconds for one command, and for an answer
_OCI_RUNTIME = """#!/usr/bin/python3 -IS
import json, os, sys

argv = sys.argv[1:]
if "create" in argv:
    path = os.path.join(argv[argv.index("--bundle") + 1], "config.json")
    with open(path) as file:
        spec = json.load(file)
    spec["linux"].pop("resources", None)
    spec["linux"]["cgroupsPath"] = "{parent}/" + argv[-1]
    with open(path, "w") as file:
        json.dump(spec, file)
os.execvp("crun", ["crun", *argv])
"""


class Unavailable(Exception):
    """It cannot be had here; the text says why, and what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The command line, ready to be used."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    image: str

    def run(self, *arguments: str) -> None:
        """One command, to its end. Raises `subprocess.SubprocessError`."""
        command = [*self.argv, *arguments]
        subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=PATIENCE)

    def create(self, tenant: str) -> None:
        """Make and start a cell; back when it is healthy."""
        self.run("create", tenant, "--runtime", "podman", "--image", self.image)

    @contextmanager
    def cell(self, tenant: str) -> Iterator[None]:
        """A cell that is not started, while the body lasts."""
        self.run("create", tenant, "--runtime", "podman", "--image", self.image, "--no-start")
        try:
            yield
        finally:
            self.remove(tenant)

    def start(self, tenant: str, port: int) -> None:
        """Start a stopped cell; back when it is healthy, for which `fleet start` does not wait."""
        self.run("start", tenant)
        deadline = monotonic() + PATIENCE
        while not _healthy(port):
            if monotonic() > deadline:
                raise TimeoutError(f"cell {tenant} is not healthy after {PATIENCE:g} s")
            sleep(0.02)

    def remove(self, tenant: str) -> None:
        """Remove a cell with its data."""
        self.run("rm", tenant, "--force", "--purge-data")

    def port(self, tenant: str) -> int:
        """The loopback port of a cell that runs."""
        told = subprocess.run(
            ["podman", "port", f"openclaw-cell-{tenant}"],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return int(told.stdout.split(":")[-1])


@contextmanager
def prepared() -> Iterator[Fleet]:
    """The peer, with data of its own and an image; both are gone afterwards, its program stays in the cache.

    Raises:
        Unavailable: It cannot be had here.
    """
    if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode:
        raise Unavailable(f"there is no {BASE}: make image")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "claw-bench", f"openclaw-{VERSION}")
    try:
        _install(cache)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise Unavailable(f"openclaw {VERSION} cannot be had from npm: {str(said).strip()[-300:]}") from error
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="claw-bench-fleet-", dir=Path.home())))
        image = f"localhost/{home.name}:cell"
        stack.callback(subprocess.run, ["podman", "rmi", "-f", image], check=False, capture_output=True)
        _make_image(home, image)
        fleet = Fleet(
            argv=(str(cache / "node/bin/node"), str(cache / "node_modules/openclaw/openclaw.mjs"), "fleet"),
            environment=_environment(home),
            image=image,
        )
        yield fleet


def _install(cache: Path) -> None:
    if (cache / "ready").exists():
        return
    if shutil.which("npm") is None:
        raise Unavailable("there is no npm on this host to get it with")
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    options = ["--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--loglevel=error"]
    install = ["npm", "install", "--prefix", str(cache), *options, f"openclaw@{VERSION}"]
    subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL)
    _copied(BASE, NODE, cache / "node")
    package = cache / "node_modules/openclaw"
    if (package / ".openclaw-lifecycle-pending").exists():  # else the first start would finish the installation
        finish = [str(cache / "node/bin/node"), "scripts/postinstall-bundled-plugins.mjs"]
        subprocess.run(finish, cwd=package, check=True, capture_output=True, text=True, timeout=INSTALL)
    (cache / "ready").touch()


def _copied(image: str, source: str, target: Path) -> None:
    made = _podman("create", *_parent(), image)
    try:
        _podman("cp", f"{made}:{source}", str(target))
    finally:
        _podman("rm", made)


def _make_image(home: Path, image: str) -> None:
    """Our image as fleet wants one: no entrypoint, the package's directory, the state below the home of `node`."""
    made = _podman("create", *_parent(), BASE)
    try:
        (home / "node").mkdir()
        _podman("cp", str(home / "node"), f"{made}:/home/node")
        changes = ["ENTRYPOINT []", "CMD []", f"WORKDIR {PACKAGE}", "ENV HOME=/home/node"]
        changes += ["ENV OPENCLAW_STATE_DIR=/home/node/.openclaw"]
        changes += ["ENV OPENCLAW_CONFIG_PATH=/home/node/.openclaw/openclaw.json"]
        _podman("commit", *(f"--change={change}" for change in changes), made, image)
    finally:
        _podman("rm", made)
    # Its layers are mapped now, as ours are, and not at the first create.
    _podman("rm", _podman("create", *_parent(), "--userns=keep-id", image, "true"))


def _environment(home: Path) -> dict[str, str]:
    environment = dict(os.environ) | {"OPENCLAW_STATE_DIR": str(home / "state"), "NO_COLOR": "1"}
    parent = os.environ.get("CLAW_CGROUP_PARENT")
    if parent:  # no controllers, and every container needs this parent
        program = home / "crun-without-limits"
        program.write_text(_OCI_RUNTIME.format(parent=parent))
        program.chmod(0o700)
        config = Path(os.environ.get("CONTAINERS_CONF") or Path.home() / ".config/containers/containers.conf")
        text = config.read_text() if config.exists() else "[engine]\n"
        lines = [line for line in text.splitlines() if not line.startswith("runtime =")]
        lines.insert(lines.index("[engine]") + 1, 'runtime = "without-limits"')
        lines += ["[engine.runtimes]", f'without-limits = ["{program}"]']
        (home / "containers.conf").write_text("\n".join(lines) + "\n")
        environment["CONTAINERS_CONF"] = str(home / "containers.conf")
    return environment


def _parent() -> list[str]:
    parent = os.environ.get("CLAW_CGROUP_PARENT")
    return [f"--cgroup-parent={parent}"] if parent else []


def _podman(*arguments: str) -> str:
    done = subprocess.run(["podman", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
