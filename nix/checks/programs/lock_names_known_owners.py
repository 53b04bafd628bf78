"""flake.lock is whole and true to form, and every input is a GitHub repository of an owner that was chosen.

Usage: lock_names_known_owners.py LOCK OWNER…
"""

import base64
import binascii
import json
import re
import sys
from pathlib import Path
from typing import Any

from verdict import refuse

_DIGEST_BYTES = 32


def check(lock: dict[str, Any], owners: set[str]) -> None:
    """Refuse the first thing that is wrong."""
    nodes = lock["nodes"]
    root = nodes[lock["root"]]
    if lock.get("version") != 7:
        refuse(f"flake.lock has version {lock.get('version')!r}; 7 was looked at")
    for name, node in sorted(nodes.items()):
        if node is not root:
            _check_locked(name, node, owners)
        for key, target in node.get("inputs", {}).items():
            _resolve(lock, f"{name}/{key}", target)
    lost = sorted(nodes.keys() - _reached(lock))
    if lost:
        refuse(f"{lost[0]} is locked, but no input leads to it")


def _check_locked(name: str, node: dict[str, Any], owners: set[str]) -> None:
    locked, original = node["locked"], node["original"]
    if locked.get("type") != "github":
        refuse(f"{name} is of type {locked.get('type')!r}; only github is allowed")
    if locked["owner"] not in owners:
        refuse(f"{name} comes from {locked['owner']}/{locked['repo']}, an owner that nobody allowed")
    if (locked["owner"], locked["repo"]) != (original.get("owner"), original.get("repo")):
        refuse(
            f"{name} was asked of {original.get('owner')}/{original.get('repo')} and is locked to another repository"
        )
    if not re.fullmatch(r"[0-9a-f]{40}", locked.get("rev", "")):
        refuse(f"{name} has no full revision: {locked.get('rev')!r}")
    if not _is_digest(locked.get("narHash", "")):
        refuse(f"{name} has no sha256 narHash: {locked.get('narHash')!r}")
    if not isinstance(locked.get("lastModified"), int):
        refuse(f"{name} has no lastModified")


def _is_digest(text: str) -> bool:
    kind, _, value = text.partition("-")
    try:
        return kind == "sha256" and len(base64.b64decode(value, validate=True)) == _DIGEST_BYTES
    except binascii.Error:
        return False


def _resolve(lock: dict[str, Any], where: str, target: str | list[str]) -> str:
    """The node that an input is; a list is followed from the root."""
    if isinstance(target, str):
        if target not in lock["nodes"]:
            refuse(f"{where} is {target}, which is not locked")
        return target
    node = lock["root"]
    for step in target:
        inputs = lock["nodes"][node].get("inputs", {})
        if step not in inputs:
            refuse(f"{where} follows {'/'.join(target)}, and there is no {step}")
        node = _resolve(lock, where, inputs[step])
    return node


def _reached(lock: dict[str, Any]) -> set[str]:
    found, waiting = set(), [lock["root"]]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            inputs = lock["nodes"][name].get("inputs", {})
            waiting += [_resolve(lock, f"{name}/{key}", target) for key, target in inputs.items()]
    return found


if __name__ == "__main__":
    try:
        check(json.loads(Path(sys.argv[1]).read_text()), set(sys.argv[2:]))
    except (ValueError, KeyError, TypeError) as error:
        refuse(f"flake.lock is not a lock: {type(error).__name__} {error}")
