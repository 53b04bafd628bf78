"""A bill of materials is CycloneDX with one component for each store path, and each has name, path and hash.

Usage: sbom_has_its_shape.py SBOM PATHS   (PATHS: the store paths of the closure, one a line)
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from verdict import refuse


def check(document: dict[str, Any], paths: set[str]) -> None:
    """Refuse the first thing that is wrong."""
    if (document.get("bomFormat"), document.get("specVersion")) != ("CycloneDX", "1.5"):
        refuse(f"it is {document.get('bomFormat')} {document.get('specVersion')}, not CycloneDX 1.5")
    if "timestamp" in document.get("metadata", {}) or "serialNumber" in document:
        refuse("it has a time or a serial number, so that no two are alike")
    seen: set[str] = set()
    for component in document.get("components", []):
        seen.add(_path_of(component))
    if len(seen) != len(document.get("components", [])):
        refuse("a store path is listed twice")
    if seen != paths:
        refuse(f"{sorted(seen ^ paths)[0]} is in the closure or in the bill, and not in both")


def _path_of(component: dict[str, Any]) -> str:
    """The component's store path; refuses what is not whole."""
    name = component.get("name") or "a component"
    for key in ("type", "name", "version", "bom-ref", "purl"):
        if not isinstance(component.get(key), str):
            refuse(f"{name} has no {key}")
    properties = {item["name"]: item["value"] for item in component.get("properties", [])}
    if not re.fullmatch(r"sha256:[0-9a-z]{52}|sha256-[A-Za-z0-9+/]{43}=", properties.get("nix:narHash", "")):
        refuse(f"{name} has no narHash: {properties.get('nix:narHash')!r}")
    return str(properties.get("nix:storePath", ""))


if __name__ == "__main__":
    check(json.loads(Path(sys.argv[1]).read_text()), set(Path(sys.argv[2]).read_text().split()))
