"""Making an image out of its recipe.

A recipe is a folder `images/<name>`: `contract.json` (every value), the configuration template, `Containerfile` and its
named steps. The build sees a small context made from these and the entrypoint, never the repository; the end of the
Containerfile is rendered from the contract, so that no value is typed twice.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claw_runtime.errors import InvalidSpec
from claw_runtime.images.inspect import REVISION, Inspection, inspect
from claw_runtime.images.verify import EXPOSED_PROTOCOL, Check, verify
from claw_runtime.images.versions import read_contract, supported
from claw_runtime.ports import Clock, Engine, Image, ImageTool
from claw_runtime.tenancy import LABEL_CONTRACT

Report = Callable[[str], None]

BASE = "localhost/claw-base:bookworm"
_BASE_NAME = "org.opencontainers.image.base.name"
_CONTEXT_MODE = {True: 0o755, False: 0o644}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an image is made of.

    Attributes:
        folder: `images/<name>`.
        entrypoint: The entrypoint's source: `__main__.py` and the package beside it.
    """

    folder: Path
    entrypoint: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image that is in the engine's store and ready for its first container.

    Attributes:
        reference: Its name.
        image: As the engine sees it (id, digest, bytes).
        seconds: What took how long: `base` and `build` (absent after a load), `map`.
    """

    reference: str
    image: Image
    seconds: Mapping[str, float]


class Images:
    """Build, load, inspect and verify, over the engine and the image tool."""

    def __init__(self, engine: Engine, tool: ImageTool, clock: Clock) -> None:
        self._engine = engine
        self._tool = tool
        self._clock = clock

    def build(
        self,
        recipe: Recipe,
        *,
        report: Report,
        base: str = "",
        version: str = "",
        reference: str = "",
        rebuild: bool = False,
    ) -> Built:
        """Make the image of a recipe; existing layers are reused.

        An image that was made of the same bytes on the same base is left as it is, unless `rebuild`.

        Args:
            base: A Debian bookworm image; empty means one made from this host's own mirrors (made once).
            version: The application's version; empty means the recipe's default. One that the recipe does not support
                is built by the default's contract.
            reference: The image's name; empty means the contract's, whose tag is the version unless it is the default.
            report: Gets one line of progress at a time.

        Raises:
            InvalidSpec: The contract is not JSON, or lacks what a build needs.
            BuildFailed, EngineUnavailable: From the tool.
        """
        contract = read_contract(recipe.folder, version=version)
        if version and version not in (known := supported(recipe.folder)):
            report(f"building an unsupported version, {version}, by the contract of {known[0]}: no test covers it")
        reference = reference or contract["image"]
        seconds: dict[str, float] = {}
        begun = self._clock.monotonic()
        if not base:
            base = BASE
            rebuild |= self._ensure_base(report)
            seconds["base"] = self._clock.monotonic() - begun
        begun = self._clock.monotonic()
        with tempfile.TemporaryDirectory(prefix="claw-image-") as scratch:
            context = Path(scratch)
            revision = write_context(context, recipe, contract, base)
            if not rebuild and self._is_current(reference, revision, base):
                report(f"{reference} is up to date: its recipe and its base have not changed")
                return self._ready(reference, seconds, report)
            report(f"building {reference}: {contract['application']['name']} {contract['application']['version']}")
            self._tool.build(context, reference, arguments={"BASE": base, **arguments(contract)}, report=report)
        seconds["build"] = self._clock.monotonic() - begun
        return self._ready(reference, seconds, report)

    def load(self, archive: Path, *, report: Report) -> Sequence[Built]:
        """Take the images of a docker or OCI archive into the store. Raises `BuildFailed`."""
        return [self._ready(name, {}, report) for name in self._tool.load(archive, report=report)]

    def inspect(self, reference: str) -> Inspection:
        """What an image says about itself. Raises `ImageMissing`, `EngineFailed`, `EngineUnavailable`."""
        return inspect(self._engine, self._tool, reference)

    def verify(self, reference: str) -> Sequence[Check]:
        """Hold an image against the contract in its own label, by looking and by running its tools once.

        Raises:
            ImageMissing: It is not in the store.
            VerifyMismatch: A promise is broken; `facts["checks"]` has all of them.
        """
        return verify(self._tool, reference)

    def _ensure_base(self, report: Report) -> bool:
        """Whether it had to be made."""
        if self._tool.has(BASE):
            return False
        report(f"making the base image {BASE} from this host's mirrors")
        self._tool.make_base(BASE, report=report)
        return True

    def _is_current(self, reference: str, revision: str, base: str) -> bool:
        if not self._tool.has(reference):
            return False
        labels = self._tool.config(reference).get("Labels") or {}
        return (labels.get(REVISION), labels.get(_BASE_NAME)) == (revision, base)

    def _ready(self, reference: str, seconds: dict[str, float], report: Report) -> Built:
        report(f"mapping {reference} for this user (once per build)")
        begun = self._clock.monotonic()
        self._engine.map_image(reference)
        seconds["map"] = self._clock.monotonic() - begun
        return Built(reference=reference, image=self._engine.image(reference), seconds=seconds)


def arguments(contract: Mapping[str, Any]) -> dict[str, str]:
    """Build arguments: what the Containerfile's heavy steps need, so that nothing else makes them run again."""
    build = contract["build"]
    return {
        "NODE": contract["node"],
        "NPM": build["npm"],
        "GEMINI": build["gemini"],
        "UV": build["uv"],
        "PACKAGES": " ".join(build["packages"]),
        "VERSION": contract["application"]["version"],
        "PLUGINS": " ".join(f"{entry['id']}={entry['package']}" for entry in contract["plugins"]["entries"]),
        "BOOT_TUNING_PATH": contract["boot_tuning"]["path"],
        "BOOT_TUNING_JSON": json.dumps(contract["boot_tuning"]["json"], separators=(",", ":")),
        "MODULES": contract["prewarm"]["modules"],
        "DIRECTORIES": " ".join(contract["volumes"]),
        "WRITABLE": " ".join(contract["writable"]),
    }


def render_end(contract: Mapping[str, Any], revision: str, base: str) -> str:
    """The end of the Containerfile: environment, ports and labels, one instruction each."""
    labels = {
        "org.opencontainers.image.title": contract["name"],
        "org.opencontainers.image.version": contract["application"]["version"],
        REVISION: revision,
        _BASE_NAME: base,
        LABEL_CONTRACT: json.dumps(contract, separators=(",", ":")),
    }
    ports = " ".join(f"{port}/{EXPOSED_PROTOCOL}" for port in contract["ports"].values())
    return f"ENV {_pairs(contract['environment'])}\nEXPOSE {ports}\nLABEL {_pairs(labels)}\n"


def _pairs(values: Mapping[str, str]) -> str:
    return " ".join(f'{name}="{_quoted(value)}"' for name, value in values.items())


def _quoted(value: str) -> str:
    """Inside double quotes of a Containerfile. A line break cannot be written there."""
    if "\n" in value:
        raise InvalidSpec(
            f"a value of the contract contains a line break: {value[:40]!r}", hint="write the value on one line"
        )
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")


def write_context(context: Path, recipe: Recipe, contract: Mapping[str, Any], base: str) -> str:
    """Fill an empty directory with all that the build may see: same input, same bytes, modes and times.

    Returns:
        The revision: one name for all of these bytes.
    """
    names = ("openclaw.json", "prewarm.mjs", "lookups.mjs", "extensions.mjs", "tool-shell")
    files = {Path(name): recipe.folder / name for name in names}
    steps = (path for path in sorted((recipe.folder / "steps").iterdir()) if path.is_file())
    files |= {path.relative_to(recipe.folder): path for path in steps}
    sources = [recipe.entrypoint / "__main__.py", *sorted((recipe.entrypoint / "claw_entrypoint").rglob("*.py"))]
    files |= {Path("entrypoint") / path.relative_to(recipe.entrypoint): path for path in sources}
    for target, source in files.items():
        (context / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, context / target)
    (context / "contract.json").write_text(json.dumps(contract, indent=1) + "\n")
    containerfile = (recipe.folder / "Containerfile").read_text()
    (context / "Containerfile").write_text(containerfile)
    revision = _digest(context)
    end = render_end(contract, revision, base)
    (context / "Containerfile").write_text(containerfile + end)
    for path in [*context.rglob("*"), context]:
        path.chmod(_CONTEXT_MODE[path.is_dir()])
        os.utime(path, (0, 0))
    return revision


def _digest(context: Path) -> str:
    """One name for all of a context's bytes."""
    total = hashlib.sha256()
    for path in sorted(path for path in context.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(context)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
