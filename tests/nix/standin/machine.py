"""What the stand-in package sets are made of: Debian's binaries, and Node, tools and OpenClaw from npm and PyPI.

`machine.py FOLDER`: makes `FOLDER/debian` (a Debian root with the contract's packages, plus `opt/`) and
`FOLDER/openclaw` (OpenClaw and its channel plugins). It reuses the steps of the Containerfile and the runtime's
knowledge of how this host reaches its mirrors, so that both builders begin with the same bytes. Needs `mmdebstrap`
and nothing else; runs as any user that has a range in /etc/subuid.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claw_runtime.engine import buildhost
from claw_runtime.engine.imagetool import base_argv

REPO = Path(__file__).resolve().parents[3]
RECIPE = REPO / "images/openclaw-nix"
# patchelf gives programs the interpreter and libraries of the store; npm only starts the steps and stays behind.
EXTRA = ("gawk", "npm", "patchelf", "procps")
# What the checks of the flake run the entrypoint's tests with.
TESTED = ("pytest", "hypothesis")
# Never in a store path: devices, what differs between two runs, and what only npm from Debian needs.
LEFT_OUT = ("dev", "proc", "sys", "run", "tmp", "mnt", "root", "boot", "home", "steps", "var", "usr/share/nodejs",
  "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/include", "etc/ssl/private", "etc/shadow*",
  "etc/gshadow*", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/llvm-*", "usr/lib/x86_64-linux-gnu/dri")  # fmt: skip


def steps(contract: Mapping[str, Any]) -> str:
    """The shell text that runs in the new root, in the order of the Containerfile's `fetch` stage."""
    build, version = contract["build"], contract["application"]["version"]
    plugins = [f"{entry['id']}={entry['package']}" for entry in contract["plugins"]["entries"]]
    commands: list[Sequence[str]] = [
        ("sh", "/steps/fetch-node.sh", contract["node"], build["npm"], build["gemini"]),
        ("sh", "/steps/fetch-uv.sh", build["uv"]),
        ("sh", "/steps/fetch-openclaw.sh", version),
        ("sh", "/steps/fetch-plugins.sh", version, *plugins),
        ("sh", "/steps/trim-javascript.sh"),
        (
            "python3",
            "-m",
            "pip",
            "install",
            "--no-compile",
            "-qt",
            "/opt/tests",
            "-c",
            "/steps/constraints.txt",
            *TESTED,
        ),
    ]
    prelude = (
        "set -e; . /mnt/environment; export PATH=/opt/npm/node_modules/.bin:/usr/local/bin:/usr/bin:/bin HOME=/root"
    )
    return "; ".join([prelude, *(shlex.join(command) for command in commands)])


def command(contract: Mapping[str, Any], scratch: Path, tar: Path) -> list[str]:
    """The mmdebstrap command. `scratch` gets its inputs, some of them this host's passwords."""
    host = buildhost.this_host()
    sources = buildhost.debian_sources(host)
    if not sources:
        sys.exit("machine.py: apt on this host names no Debian mirror, so there is nothing to make a root from")
    settings = scratch / "mnt"
    settings.mkdir(mode=0o700)
    buildhost.write_settings(host, settings)
    program, *rest = base_argv(host, sources, scratch, tar)
    # `sync-in` reads as this user; a plain hook runs as the new root's root, to whom these files do not belong.
    hooks = [
        'mkdir -p "$1/mnt" "$1/steps"',
        f"sync-in {settings} /mnt",
        f"sync-in {RECIPE}/steps /steps",
        f"copy-in {REPO}/constraints.txt /steps",
        f'chroot "$1" sh -c {shlex.quote(steps(contract))}',
        'rm -rf "$1"/mnt/* "$1"/steps',
    ]
    packages = ",".join([*contract["build"]["packages"], *EXTRA])
    return [program, f"--include={packages}", *(f"--customize-hook={hook}" for hook in hooks), *rest]


def unpack(tar: Path, target: Path, *options: str) -> None:
    """Extract as this user: the store keeps neither owners nor special bits."""
    target.mkdir(parents=True)
    subprocess.run(["tar", "-xf", tar, "-C", target, "--no-same-owner", "--no-same-permissions", *options], check=True)


def inventory(dpkg: Path) -> dict[str, dict[str, Any]]:
    """Version and programs of every Debian package, out of a copy of `var/lib/dpkg`."""
    found: dict[str, dict[str, Any]] = {}
    for stanza in (dpkg / "status").read_text().strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        name = fields["Package"]
        lists = [path for path in (dpkg / f"info/{name}.list", dpkg / f"info/{name}:amd64.list") if path.exists()]
        paths = [line for path in lists for line in path.read_text().splitlines()]
        programs = sorted({path for path in paths if re.fullmatch(r"(/usr)?/s?bin/[^/]+", path)})
        found[name] = {"version": fields["Version"], "programs": programs}
    return found


def main(folder: Path) -> None:
    contract = json.loads((RECIPE / "contract.json").read_text())
    with tempfile.TemporaryDirectory(prefix="claw-machine-", dir=folder.parent) as name:
        scratch = Path(name)
        tar, made = scratch / "root.tar", scratch / "made"
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
        subprocess.run(command(contract, scratch, tar), check=True, env=environment)
        left_out = [f"--exclude=./{path}" for path in (*LEFT_OUT, "opt/openclaw")]
        unpack(tar, made / "debian", "--anchored", *left_out)
        unpack(tar, made / "openclaw", "--strip-components=3", "./opt/openclaw")
        unpack(tar, scratch / "dpkg", "--strip-components=4", "./var/lib/dpkg")
        pins = {"node": contract["node"], **{name: contract["build"][name] for name in ("npm", "gemini", "uv")}}
        versions = {"debian": inventory(scratch / "dpkg"), "pins": pins}
        (made / "debian/versions.json").write_text(json.dumps(versions, indent=1, sort_keys=True))
        made.rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
