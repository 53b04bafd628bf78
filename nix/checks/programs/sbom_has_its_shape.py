"""A bill of materials is CycloneDX, and has one component with name, path and hash for each store path of an archive.

Usage: sbom_has_its_shape.py SBOM ARCHIVE
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import archive
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
        path = min(seen ^ paths)
        refuse(f"{path} is in the {'bill and not in the image' if path in seen else 'image and not in the bill'}")


def store_paths(image: archive.Image) -> set[str]:
    """The store paths that an image ships."""
    return {"/".join(path.split("/")[:4]) for path in image.entries if path.startswith("/nix/store/")}


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
    check(json.loads(Path(sys.argv[1]).read_text()), store_paths(archive.read(sys.argv[2])))
