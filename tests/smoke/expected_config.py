"""Compare a seeded configuration with what the contract and the template say it has to be.

`python3 -I expected_config.py CONTRACT TEMPLATE SEEDED STATE [NAME=VALUE…]`: STATE is the host's directory behind
/state, where a generated value was put. A second, simple way to the same document, so that the entrypoint is not its
own judge. Prints the places that differ, never a value; status 1 when there are any.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

PLACEHOLDER = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")
MISSING = object()


def fill(node: Any, values: dict[str, str]) -> Any:
    """The node with values in its leaves; `MISSING` for a leaf that lacks one."""
    if isinstance(node, dict):
        filled = {key: fill(item, values) for key, item in node.items()}
        return {key: item for key, item in filled.items() if item is not MISSING}
    if isinstance(node, list):
        return [item for item in (fill(child, values) for child in node) if item is not MISSING]
    if not isinstance(node, str):
        return node
    if any(name not in values for name in PLACEHOLDER.findall(node)):
        return MISSING
    # OpenClaw expands the result once more: a value's own ${NAME} is written so that it survives that.
    return PLACEHOLDER.sub(lambda found: PLACEHOLDER.sub(r"$\g<0>", values[found[1]]), node)


def turn_off(document: Any, operation: dict[str, Any]) -> None:
    """One of the contract's operations for a feature that lacks a value."""
    *parents, last = operation["path"].strip("/").split("/")
    for part in parents:
        document = document.get(part, {})
    if last in document:
        if operation["op"] == "remove":
            del document[last]
        else:
            document[last] = operation["value"]


def differences(expected: Any, seen: Any, where: str = "") -> list[str]:
    """JSON pointers of the places that differ."""
    if isinstance(expected, dict) and isinstance(seen, dict):
        keys = sorted(expected.keys() | seen.keys())
        return [place for key in keys for place in differences(expected.get(key), seen.get(key), f"{where}/{key}")]
    return [] if expected == seen else [where or "/"]


def main(contract_path: str, template_path: str, seeded_path: str, state: str, *given: str) -> int:
    contract, template, seeded = (
        json.loads(Path(path).read_text(encoding="utf-8")) for path in (contract_path, template_path, seeded_path)
    )
    values = dict(pair.split("=", 1) for pair in given)
    for name, value in contract["values"].items():
        if value["need"] == "generated" and name not in values:
            file = Path(state) / Path(value["file"]).relative_to("/state")
            values[name] = file.read_text(encoding="utf-8").strip()
            mode = file.stat().st_mode & 0o777
            print(f"{name}: generated, {len(values[name])} characters, mode {mode:o}")
            if mode != 0o600 or len(values[name]) < 32:
                print("expected mode 600 and at least 32 characters")
                return 1
    document = fill(template, values)
    for name, value in contract["values"].items():
        if value["need"] == "optional" and name not in values:
            for operation in contract["features"].get(value.get("feature"), ()):
                turn_off(document, operation)
    places = differences(document, seeded)
    print("as expected" if not places else f"differs at: {', '.join(places)}")
    return 1 if places else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
