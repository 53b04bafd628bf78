"""Proving that an image is what the contract in its own label says: its configuration, its files and its tools."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from claw_runtime.errors import VerifyMismatch
from claw_runtime.ports import ImageTool
from claw_runtime.tenancy import LABEL_CONTRACT

EXPOSED_PROTOCOL = "tcp"
"""Of every port that an image exposes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise of the contract and what was found. `detail` is one line for a person."""

    name: str
    ok: bool
    detail: str


def verify(tool: ImageTool, reference: str) -> Sequence[Check]:
    """Hold an image against the contract in its own label, by looking and by running its tools once.

    Raises:
        ImageMissing: It is not in the store.
        VerifyMismatch: A promise is broken; `facts["checks"]` has all of them.
    """
    config = tool.config(reference)
    label = (config.get("Labels") or {}).get(LABEL_CONTRACT)
    if not label:
        raise VerifyMismatch(
            f"{reference} has no contract",
            why=f"the image has no label {LABEL_CONTRACT}",
            hint="build it with `claw-runtime image build`, or load an archive of an image that was built with it",
        )
    contract = json.loads(label)
    checks = [*check_config(config, contract), *_probed(tool, reference, config, contract)]
    broken = [check for check in checks if not check.ok]
    if broken:
        raise VerifyMismatch(
            f"{reference} does not match its contract ({len(broken)} of {len(checks)} checks failed)",
            why="; ".join(f"{check.name}: {check.detail}" for check in broken),
            hint="build the image again; if it was changed on purpose, change its contract.json too",
            checks=checks,
        )
    return checks


def _probed(tool: ImageTool, reference: str, config: Mapping[str, Any], contract: Mapping[str, Any]) -> Sequence[Check]:
    python = (config.get("Entrypoint") or ["/usr/bin/python3"])[0]
    question = json.dumps({"tools": contract["tools"], "paths": promised_paths(contract)})
    result = tool.run(reference, [python, "-I", "-S", "-c", _PROBE, question])
    if result.exit_code != 0:
        tail = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return [Check(name="probe", ok=False, detail=f"exit {result.exit_code}: {' '.join(tail)}")]
    return check_inside(json.loads(result.stdout), contract)


def promised_paths(contract: Mapping[str, Any]) -> list[str]:
    """Files and directories that must be in the image, by absolute path."""
    prewarm = contract.get("prewarm", {"argv": []})
    words = [*contract["exec"]["argv"], *prewarm["argv"], prewarm.get("modules", "")]
    return [
        *(word for word in words if word.startswith("/")),
        *(word.partition("=")[2] for word in words if word.startswith("--") and "=/" in word),
        *([contract["discovery"]["source"]] if "discovery" in contract else []),
        contract["template"]["source"],
        *(entry["path"] for entry in contract.get("plugins", {}).get("entries", ())),
        *([contract["boot_tuning"]["path"]] if "boot_tuning" in contract else []),
        *contract["volumes"],
    ]


def check_config(config: Mapping[str, Any], contract: Mapping[str, Any]) -> Sequence[Check]:
    """What the image's configuration says."""
    environment = dict(entry.split("=", 1) for entry in config.get("Env") or [])
    different = sorted(name for name, value in contract["environment"].items() if environment.get(name) != value)
    ports = {f"{port}/{EXPOSED_PROTOCOL}" for port in contract["ports"].values()}
    labels = config.get("Labels") or {}
    version = labels.get("org.opencontainers.image.version", "")
    return [
        Check(name="no user", ok=not config.get("User"), detail=config.get("User") or "any uid may run it"),
        Check(name="no healthcheck", ok=not config.get("Healthcheck"), detail="the runtime has its own probes"),
        Check(
            name="environment", ok=not different, detail=" ".join(different) or f"{len(contract['environment'])} names"
        ),
        Check(name="ports", ok=ports <= set(config.get("ExposedPorts") or {}), detail=" ".join(sorted(ports))),
        Check(name="version label", ok=version == contract["application"]["version"], detail=version or "missing"),
        Check(name="entrypoint", ok=bool(config.get("Entrypoint")), detail=" ".join(config.get("Entrypoint") or [])),
        Check(name="no command", ok=not config.get("Cmd"), detail=" ".join(config.get("Cmd") or []) or "none"),
    ]


def check_inside(found: Mapping[str, Any], contract: Mapping[str, Any]) -> Sequence[Check]:
    """What the probe found in a container of the image."""
    open_directories = sorted(set(found["open"]) - set(contract["writable"]))
    closed = sorted(path for path in contract["writable"] if found["modes"].get(path) != "1777")
    checks = [
        Check(name="no setuid file", ok=not found["setuid"], detail=" ".join(found["setuid"][:5]) or "none"),
        Check(
            name="no other writable directory", ok=not open_directories, detail=" ".join(open_directories[:5]) or "none"
        ),
        Check(name="writable directories", ok=not closed, detail=" ".join(closed or contract["writable"])),
        Check(name="promised paths", ok=not found["missing"], detail=" ".join(found["missing"]) or "all exist"),
    ]
    for tool in contract["tools"]:
        code, line = found["tools"].get(tool, (127, "not run"))
        checks.append(Check(name=f"tool {tool}", ok=code == 0, detail=line if code == 0 else f"exit {code}: {line}"))
    version = contract["application"]["version"]
    line = found["tools"].get(contract["application"]["name"], (1, ""))[1]
    checks.append(Check(name="application version", ok=version in line, detail=line or "not run"))
    return checks


# Runs inside the container, by the interpreter of the image's own entrypoint.
_PROBE = """
import json, os, stat, subprocess, sys
ask = json.loads(sys.argv[1])
top = os.lstat("/").st_dev
setuid, wide, modes = [], [], {}
for path, directories, files in os.walk("/"):
    directories[:] = [name for name in directories if os.lstat(os.path.join(path, name)).st_dev == top]
    for name in directories + files:
        entry = os.path.join(path, name)
        mode = os.lstat(entry).st_mode
        if stat.S_ISREG(mode) and mode & 0o6000:
            setuid.append(entry)
        elif not stat.S_ISLNK(mode) and mode & 0o002:
            wide.append(entry)
for path in ask["paths"]:
    if os.path.isdir(path):
        modes[path] = oct(stat.S_IMODE(os.stat(path).st_mode))[2:]
tools = {}
environment = {**os.environ, "HOME": "/tmp", "NPM_CONFIG_CACHE": "/tmp/npm-cache"}
for name, argv in ask["tools"].items():
    try:
        done = subprocess.run(argv, env=environment, cwd="/tmp", stdin=subprocess.DEVNULL, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        tools[name] = done.returncode, (done.stdout.decode(errors="replace").strip().splitlines() or [""])[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        tools[name] = 127, str(error)
missing = [path for path in ask["paths"] if not os.path.exists(path)]
print(json.dumps({"setuid": setuid, "open": wide, "modes": modes, "missing": missing, "tools": tools}))
"""
