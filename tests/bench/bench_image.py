"""The cost of the images by builder: Nix's compared with the Containerfile's, in disk and in seconds until ready.

Both hold the same gateway, channels and tools. Each starts without a network over an empty state, hardened as a
tenant's container is. It gets the values of a matrix account, so that both channel plugins load. The smoke checks'
own program asks for readiness inside the container, by the contract's policy.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure, load, now, take_turns

PROJECT = Path(__file__).parents[2]
OURS, THEIRS = "localhost/openclaw-nix:nix", "localhost/openclaw-nix:dev"
PEER = "Containerfile image"
LABEL_CONTRACT = "io.claw.contract"
PATIENCE = 120  # seconds until ready
REST = 1.0  # seconds
VALUES = {
    "OPENCLAW_MATRIX_HOMESERVER": "https://matrix.example.org",
    "OPENCLAW_MATRIX_USER_ID": "@bench:matrix.example.org",
    "OPENCLAW_MATRIX_TOKEN": "not-a-token",
}


def measure_size(_runs: int = 1) -> list[Figure]:
    """`image_nix_mb`: the sizes in Podman's store. Read once, whatever was asked for: no turn changes them."""
    if _lacks("image_nix_mb"):
        return []
    sizes = {name: int(_podman("image", "inspect", "--format", "{{.Size}}", name)) / 1e6 for name in (OURS, THEIRS)}
    return [
        Figure(
            name="image_nix_mb",
            unit="MB",
            peer=PEER,
            goal=1,
            ours=[sizes[OURS]],
            theirs=[sizes[THEIRS]],
            load=(load(), load()),
            at=now(),
        )
    ]


def measure_ready(runs: int = 3) -> list[Figure]:
    """`image_nix_ready_s`: from `podman run -d` until ready. The first turn, which maps, is no figure."""
    if _lacks("image_nix_ready_s"):
        return []
    before = load()
    ours, theirs = take_turns("image_nix_ready_s", runs, lambda: _ready(OURS), lambda: _ready(THEIRS), rest=REST)
    figure = Figure(
        name="image_nix_ready_s", peer=PEER, goal=1.1, ours=ours, theirs=theirs, load=(before, load()), at=now()
    )
    return [figure]


def lacking(contracts: dict[str, dict[str, Any] | None]) -> str:
    """Why the two images cannot be compared, out of the contract that each carries (None: no such image)."""
    if contracts[OURS] is None:
        return f"there is no {OURS}: nix build .#openclaw-nix-image, or tests/nix/standin/build.sh (docs/NIX.md)"
    contract = contracts[THEIRS]
    if contract is None:
        return f"there is no {THEIRS}: CLAW_BUILDER=containerfile make image"
    if "build" not in contract:
        return f"{THEIRS} is built with Nix, too: CLAW_BUILDER=containerfile make image"
    return ""


def _lacks(figure: str) -> bool:
    reason = lacking({name: _contract(name) for name in (OURS, THEIRS)})
    if reason:
        print(f"bench: {figure} is skipped: {reason}", file=sys.stderr)
    return bool(reason)


def _contract(image: str) -> dict[str, Any] | None:
    """The contract that an image carries; None when there is no such image."""
    words = ["podman", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL_CONTRACT}"}}}}', image]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else None


def _ready(image: str) -> float:
    """Seconds of one container, which is gone afterwards, over directories that nobody used before."""
    # Below the user's home, as a tenant's directories are: /tmp may be memory.
    home = Path(tempfile.mkdtemp(prefix="claw-bench-", dir=Path.home()))
    contract = _contract(image)
    assert contract is not None
    try:
        for name in ("state", "logs"):
            (home / name).mkdir()
        asking = ["exec", "-i", home.name, "/usr/bin/python3", "-I", "-", json.dumps(policy(contract)), str(PATIENCE)]
        program = (PROJECT / "tests/smoke/ready.py").read_text()
        begin = time.perf_counter()
        _podman(*start(image, home))
        _podman(*asking, text=program)
        return time.perf_counter() - begin
    finally:
        subprocess.run(["podman", "rm", "-f", "-i", "-t", "0", "-v", home.name], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)


def policy(contract: dict[str, Any]) -> dict[str, Any]:
    """What tests/smoke/ready.py is told: port, probes, and the file with the token of the ready path."""
    probes = contract["probes"]
    bearer = contract["values"].get(probes["ready"].get("bearer"), {}).get("file", "")
    return {"port": contract["ports"]["gateway"], "bearer_file": bearer, **probes}


def start(image: str, home: Path) -> Sequence[str]:
    """Podman's arguments, of which the image is all that differs between the builders."""
    argv = ["run", "-d", "--pull=never", f"--name={home.name}", "--network=none", "--userns=keep-id"]
    argv += [f"--user={os.getuid()}:{os.getgid()}", "--cap-drop=all", "--security-opt=no-new-privileges", "--read-only"]
    argv += [f"--tmpfs={path}:rw,mode=1777" for path in ("/config", "/tmp", "/var/tmp")]
    argv += [f"--volume={home / name}:/{name}:rw,nosuid,nodev" for name in ("state", "logs")]
    argv += [f"--env={name}={value}" for name, value in VALUES.items()]
    if parent := os.environ.get("CLAW_CGROUP_PARENT"):
        argv += [f"--cgroup-parent={parent}"]
    return [*argv, image]


def _podman(*arguments: str, text: str = "") -> str:
    done = subprocess.run(["podman", *arguments], check=True, stdout=subprocess.PIPE, input=text, text=True)
    return done.stdout.strip()
