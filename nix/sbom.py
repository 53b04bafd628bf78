"""A CycloneDX bill of materials out of what Nix knows of a closure: the same closure, the same bytes.

Usage: sbom.py ATTRIBUTES NAME VERSION   (ATTRIBUTES: the structured attributes of a build: the graph
`closure`, and `leftOut`, the path in it that only lists the others)
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

_HASH_LENGTH = 32


def parts(path: str) -> tuple[str, str]:
    """Name and version of a store path: the version begins at the first dash that is followed by a digit."""
    name = Path(path).name[_HASH_LENGTH + 1 :]
    found = re.search(r"-(?=[0-9])", name)
    return (name[: found.start()], name[found.end() :]) if found else (name, "")


def component(node: dict[str, Any]) -> dict[str, Any]:
    """One store path as a component; its hash is the one that Nix checks."""
    name, version = parts(node["path"])
    return {
        "type": "library",
        "bom-ref": Path(node["path"]).name,
        "name": name,
        "version": version,
        "purl": f"pkg:nix/{name}@{version}" if version else f"pkg:nix/{name}",
        "properties": [
            {"name": "nix:storePath", "value": node["path"]},
            {"name": "nix:narHash", "value": node["narHash"]},
            {"name": "nix:narSize", "value": str(node["narSize"])},
        ],
    }


def document(closure: list[dict[str, Any]], name: str, version: str) -> dict[str, Any]:
    """The bill of an application made of a closure."""
    nodes = sorted(closure, key=lambda node: node["path"])
    needs = {node["path"]: sorted(Path(other).name for other in node["references"] if other != node["path"])
             for node in nodes}  # fmt: skip
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": name, "name": name, "version": version}},
        "components": [component(node) for node in nodes],
        "dependencies": [{"ref": Path(path).name, "dependsOn": refs} for path, refs in needs.items()],
    }


if __name__ == "__main__":
    attributes = json.loads(Path(sys.argv[1]).read_text())
    nodes = [node for node in attributes["closure"] if node["path"] != attributes["leftOut"]]
    json.dump(document(nodes, *sys.argv[2:4]), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
