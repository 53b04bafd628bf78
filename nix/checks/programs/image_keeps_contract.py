"""The configuration in an image's archive is what its contract says, and the archive carries that contract.

Usage: image_keeps_contract.py ARCHIVE CONTRACT
"""

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import archive
from verdict import refuse, some

LABEL = "io.claw.contract"
LABELS = {
    "org.opencontainers.image.title": lambda contract: contract["name"],
    "org.opencontainers.image.version": lambda contract: contract["application"]["version"],
}


def check(image: archive.Image, contract: dict[str, Any]) -> None:
    """Refuse the first difference."""
    config, labels = image.config, image.config.get("Labels") or {}
    if json.loads(labels.get(LABEL, "null")) != contract:
        refuse(f"label {LABEL} is missing or another contract")
    for label, value in LABELS.items():
        if labels.get(label) != value(contract):
            refuse(f"label {label} is {labels.get(label)!r}, the contract says {value(contract)!r}")
    environment = dict(entry.split("=", 1) for entry in config.get("Env") or [])
    wrong = sorted(name for name, value in contract["environment"].items() if environment.get(name) != value)
    if wrong:
        refuse(f"Env {wrong[0]} is {environment.get(wrong[0])!r}, contract {contract['environment'][wrong[0]]!r}")
    ports = {f"{port}/tcp" for port in contract["ports"].values()}
    if ports != set(config.get("ExposedPorts") or {}):
        refuse(f"exposed ports are {sorted(config.get('ExposedPorts') or {})}, the contract says {sorted(ports)}")
    for key in ("User", "Healthcheck", "Cmd"):
        if config.get(key):
            refuse(f"{key} is set: {config[key]!r}")
    if not config.get("Entrypoint"):
        refuse("there is no Entrypoint")
    missing = [path for path in promised(contract) if not is_there(image, path)]
    if missing:
        refuse(f"not in the image: {some(missing)}")


def promised(contract: dict[str, Any]) -> list[str]:
    """Files and directories that the contract speaks of."""
    tuning = [contract["boot_tuning"]["path"]] if "boot_tuning" in contract else []
    prewarm = contract.get("prewarm", {"argv": []})
    words = [*contract["exec"]["argv"], *prewarm["argv"], prewarm.get("modules", "")]
    return [
        *(word for word in words if word.startswith("/")),
        *(word.partition("=")[2] for word in words if word.startswith("--") and "=/" in word),
        *([contract["discovery"]["source"]] if "discovery" in contract else []),
        contract["template"]["source"],
        *(entry["path"] for entry in contract.get("plugins", {}).get("entries", [])),
        *tuning,
        *contract["volumes"],
    ]


def is_there(image: archive.Image, path: str, depth: int = 40) -> bool:
    """Whether a path leads to something, through the links of the image itself."""
    found = "/"
    parts = [part for part in path.split("/") if part]
    for index, part in enumerate(parts):
        found = found.rstrip("/") + "/" + part
        entry = image.entries.get(found)
        if entry is None:
            # A layer need not list the directories above its entries.
            if any(name.startswith(found + "/") for name in image.entries):
                continue
            return False
        if entry.issym():
            target = (
                entry.linkname if entry.linkname.startswith("/") else f"{found.rpartition('/')[0]}/{entry.linkname}"
            )
            rest = "/".join(parts[index + 1 :])
            return depth > 0 and is_there(image, normal(f"{target}/{rest}"), depth - 1)
    return True


def normal(path: str) -> str:
    """A path without `.` and `..`."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)


if __name__ == "__main__":
    try:
        check(archive.read(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
    except (tarfile.TarError, KeyError, ValueError) as error:
        refuse(f"cannot be read: {type(error).__name__} {error}")
