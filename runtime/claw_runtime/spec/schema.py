"""The JSON Schema of the workload file, for editors that complete and check.

It is generated from the models, and marks the second dialect as deprecated. It accepts a little more than the models:
`claw-runtime config check` also finds errors that no schema can express, such as overlapping mounts.
"""

from typing import Any

from claw_runtime.spec.dialect import FORMER_TIERS, MOVED, SECTIONS, dotted
from claw_runtime.spec.lifecycle import WarmthFile
from claw_runtime.spec.workload import ResourcesFile, WorkloadFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The whole schema."""
    made = WorkloadFile.model_json_schema()
    definitions = made.pop("$defs")
    for model in (made, *definitions.values()):
        _tidy(model)
    _odd_forms(made, definitions)
    return {"$schema": DIALECT, "title": "claw workload", **made, "$defs": definitions}


def _tidy(model: dict[str, Any]) -> None:
    """Remove titles that only repeat the key, empty defaults, and null, which no key accepts."""
    model.pop("title", None)
    for value in model["properties"].values():
        value.pop("title", None)
        if value.get("default", True) in (None, {}, []) or isinstance(value.get("default"), dict):
            del value["default"]
        choices = [choice for choice in value.get("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1:
            del value["anyOf"]
            value.update(choices[0])
        elif choices:
            value["anyOf"] = choices


def _odd_forms(made: dict[str, Any], definitions: dict[str, Any]) -> None:
    for old, new in MOVED.items():
        moved: dict[str, Any] = {"deprecated": True, "description": f"Written `{dotted(new)}`."}
        if len(old) == 1:
            moved["$ref"] = f"#/$defs/{ResourcesFile.__name__}"
        else:
            inner = {old[1]: {"type": ["string", "integer"], **moved}}
            moved |= {"type": "object", "properties": inner, "additionalProperties": False}
        made["properties"][str(old[0])] = moved
    made["properties"]["user"] = {**made["properties"]["user"], "type": ["string", "integer"]}
    volumes = made["properties"]["volumes"]
    volumes["properties"] = {
        "custom": {
            "anyOf": [
                {"type": "array", "items": {"type": "object"}, "deprecated": True},
                volumes["additionalProperties"],
            ],
            "description": "As a list: written `volumes.NAME`.",
        }
    }
    tiers = definitions[WarmthFile.__name__]["properties"]
    for former, tier in FORMER_TIERS.items():
        tiers[former] = {**tiers[tier], "deprecated": True, "description": f"Called `{tier}` now."}
    for model in SECTIONS.values():
        properties = definitions[model.__name__]["properties"]
        for name, value in list(properties.items()):
            if {"type": "number"} in value.get("anyOf", ()):
                properties[f"{name}_ms"] = {
                    "type": "number",
                    "deprecated": True,
                    "description": f"Written `{name}`, with its unit.",
                }
