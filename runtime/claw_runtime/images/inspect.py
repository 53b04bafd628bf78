"""What an image says about itself: its labels, where its source is, and what it is made of.

An image that was built with Nix carries a bill of materials; its summary is read inside a container of the image, so
that nothing but that summary is taken out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from claw_runtime.ports import Engine, Image, ImageTool
from claw_runtime.tenancy import LABEL_CONTRACT

REVISION = "org.opencontainers.image.revision"
BILL = "/etc/claw/sbom.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A bill of materials in short: its form (`CycloneDX 1.5`), how many components, and `sha256:…` of the file."""

    form: str
    components: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an image says about itself.

    Attributes:
        reference, image: Its name, and the engine's view of it.
        labels: All but the contract, which is a document of its own.
        application: Name and version, from the contract; empty without one.
        revision: Of the source that it was built of; empty when the builder did not say.
        bill: Of the file that a Nix build puts into the image; None when there is none.
    """

    reference: str
    image: Image
    labels: Mapping[str, str]
    application: str
    revision: str
    bill: Bill | None


def inspect(engine: Engine, tool: ImageTool, reference: str) -> Inspection:
    """Look at an image; nothing of it runs but the interpreter that reads the bill of materials.

    Raises:
        ImageMissing: It is not in the store.
        EngineFailed, EngineUnavailable: From the tool.
    """
    config = tool.config(reference)
    labels = dict(config.get("Labels") or {})
    application = _object(labels.pop(LABEL_CONTRACT, "")).get("application") or {}
    return Inspection(
        reference=reference,
        image=engine.image(reference),
        labels=labels,
        application=f"{application.get('name', '')} {application.get('version', '')}".strip(),
        revision=labels.get(REVISION, ""),
        bill=_bill(tool, reference, config),
    )


def _bill(tool: ImageTool, reference: str, config: Mapping[str, Any]) -> Bill | None:
    interpreter = (config.get("Entrypoint") or [""])[0]
    if not interpreter:
        return None
    result = tool.run(reference, [interpreter, "-I", "-S", "-c", _SUMMARY, BILL])
    found = _object(result.stdout.decode(errors="replace")) if result.exit_code == 0 else {}
    if not found.get("form"):
        return None
    return Bill(form=found["form"], components=found["components"], digest=found["digest"])


def _object(text: str) -> dict[str, Any]:
    """A JSON object; empty for any other text."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# Runs inside the container, by the interpreter of the image's own entrypoint.
_SUMMARY = """
import hashlib, json, sys
try:
    with open(sys.argv[1], "rb") as file:
        body = file.read()
    bill = json.loads(body)
    form = f"{bill['bomFormat']} {bill['specVersion']}"
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    print(json.dumps({"form": form, "components": len(bill["components"]), "digest": digest}))
except FileNotFoundError:
    print("{}")
"""
