"""The application's versions that a recipe supports, each as data in one place.

`contract.json` is the contract of the default version, whole. `versions/<version>.json` has what another supported
version has otherwise, as a JSON merge patch (RFC 7396): an object is merged, `null` removes, everything else replaces.
A version's number and its image's tag follow from the name of its file, so a file without differences is `{}`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claw_runtime.errors import InvalidSpec

FOLDER = "versions"
_DERIVED = (("application", "version"), ("image",))


def read_contract(folder: Path, *, version: str = "") -> dict[str, Any]:
    """The contract of a recipe for one version of its application; empty means the default version.

    A version that is not supported gets the default's contract with its own number and tag.

    Raises:
        InvalidSpec: `contract.json` or the version's file is not what it must be.
    """
    path = folder / "contract.json"
    try:
        contract: dict[str, Any] = json.loads(path.read_text())
        if version and version != contract["application"]["version"]:
            contract = merged(contract, _differences(folder, version))
            contract["application"]["version"] = version
            contract["image"] = f"{contract['image'].rpartition(':')[0]}:{version}"
        _ = (contract["image"], contract["name"], contract["node"], contract["build"], contract["environment"])
    except FileNotFoundError:
        raise InvalidSpec(
            f"{folder} is not a recipe",
            why="it has no contract.json",
            hint="name a folder of images/, such as images/openclaw-nix",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidSpec(
            f"{path} is not a contract", why=str(error), hint="compare it with its last committed version"
        ) from error
    return contract


def supported(folder: Path) -> Sequence[str]:
    """The supported versions of a recipe, the default first. Raises `InvalidSpec`."""
    default = read_contract(folder)["application"]["version"]
    return [default, *(path.stem for path in sorted((folder / FOLDER).glob("*.json")) if path.stem != default)]


def merged(document: Any, patch: Any) -> Any:
    """A JSON document with a merge patch (RFC 7396) applied; neither of them is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(document) if isinstance(document, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _differences(folder: Path, version: str) -> Mapping[str, Any]:
    path = folder / FOLDER / f"{version}.json"
    if "/" in version or not path.is_file():
        return {}
    patch: Any = {}
    try:
        patch = json.loads(path.read_text())
        fault = _fault(patch)
    except ValueError as error:
        fault = str(error)
    if fault:
        raise InvalidSpec(
            f"{path} does not describe a version", why=fault, hint="see docs/IMAGE.md, Changing a version"
        )
    return dict(patch)


def _fault(patch: Any) -> str:
    """Why this is not what a version differs in; empty when it is."""
    if not isinstance(patch, dict):
        return "it is not a JSON object"
    for where in _DERIVED:
        node: Any = patch
        for name in where:
            node = node.get(name) if isinstance(node, dict) else None
        if node is not None:
            return f"{'.'.join(where)} follows from the file's name and must not be stated"
    return ""
