"""The channel plugins are in the image, where the gateway will trust them: one real place for load path and link.

OpenClaw trusts a load path only when a managed project's link leads to the same real directory, and when the package
there is the official one; the entrypoint makes that link out of the contract.
Usage: plugins_are_trusted.py ROOT CONTRACT TEMPLATE
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from image_root import resolve
from verdict import refuse


def check(root: Path, contract: dict[str, Any], template: dict[str, Any]) -> None:
    """Refuse the first plugin that is missing, is another package, or would not be trusted."""
    plugins = contract["plugins"]["entries"]
    paths = template["plugins"]["load"]["paths"]
    for plugin in plugins:
        if plugin["path"] not in paths:
            refuse(f"{plugin['id']}: the template does not load {plugin['path']}")
        if not template["plugins"]["entries"].get(plugin["id"], {}).get("enabled"):
            refuse(f"{plugin['id']}: the template does not enable it")
        _check_package(root, plugin, contract["application"]["version"])
        slug = plugin["package"].removeprefix("@").replace("/", "-")
        project = f"{slug}-{hashlib.sha256(plugin['package'].encode()).hexdigest()[:10]}"
        if plugin["project"] != project:
            refuse(f"{plugin['id']}: its project must be named {project}")
    unknown = sorted(set(paths) - {plugin["path"] for plugin in plugins})
    if unknown:
        refuse(f"the template loads {unknown[0]}, which is no plugin of the contract")


def _check_package(root: Path, plugin: dict[str, str], version: str) -> None:
    place = resolve(root, plugin["path"])
    manifest = place / "package.json" if place else None
    if not place or not manifest or not manifest.is_file() or not (place / "openclaw.plugin.json").is_file():
        refuse(f"{plugin['id']}: there is no plugin at {plugin['path']}")
    found = json.loads(manifest.read_text())
    if (found["name"], found["version"]) != (plugin["package"], version):
        refuse(f"{plugin['id']}: {found['name']} {found['version']} is there, not {plugin['package']} {version}")


if __name__ == "__main__":
    contract, template = (json.loads(Path(name).read_text()) for name in sys.argv[2:4])
    check(Path(sys.argv[1]), contract, template)
