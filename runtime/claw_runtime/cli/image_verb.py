"""`claw-runtime image`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from claw_runtime.cli import output
from claw_runtime.errors import InvalidSpec, VerifyMismatch
from claw_runtime.units import format_duration, format_size

if TYPE_CHECKING:
    from claw_runtime.images.inspect import Inspection

_BEGINNINGS = ("making ", "building ", "mapping ", "mmdebstrap: ")


@click.group("image")
def command() -> None:
    """Build, load, inspect and verify images."""


@command.command("build")
@click.argument("name", default="openclaw-nix")
@click.option("--base", default="", help="A Debian bookworm image; default: built from this host's mirrors.")
@click.option("--version", "version", default="", help="Application version; default: the recipe's.")
@click.option("--reference", default="", help="Image name; default: the recipe's, for another version tagged with it.")
@click.option(
    "--images", type=click.Path(path_type=Path), help="Directory of recipes; default: images/ here or in a parent."
)
@click.option("--rebuild", is_flag=True, help="Build even if none of the image's inputs have changed.")
@click.option("-v", "--verbose", is_flag=True, help="Show the build tool's output.")
@output.form_option
@click.pass_obj
def build(
    context: output.Context,
    name: str,
    base: str,
    version: str,
    reference: str,
    images: Path | None,
    rebuild: bool,
    verbose: bool,
) -> None:
    """Build an image from its recipe, without Nix.

    NAME is a folder of images/. Existing layers are reused.

    \b
    Examples:
      claw-runtime image build
      claw-runtime image build openclaw-nix --base debian:bookworm-slim
      claw-runtime image build --version 2026.9.6
    """
    from claw_runtime.daemon import tools
    from claw_runtime.images.build import Recipe

    top = images or _recipes()
    recipe = Recipe(folder=top / name, entrypoint=top.parent / "entrypoint")
    with tools.images(context.settings()) as service:
        built = service.build(
            recipe,
            report=_reporter(verbose=verbose),
            base=base,
            version=version,
            reference=reference,
            rebuild=rebuild,
        )
    _show(context, [built])


@command.command("load")
@click.argument("archive", type=click.Path(path_type=Path))
@output.form_option
@click.pass_obj
def load(context: output.Context, archive: Path) -> None:
    """Load an image archive, and make it ready for its first container.

    \b
    Examples:
      claw-runtime image load result
    """
    from claw_runtime.daemon import tools

    with tools.images(context.settings()) as service:
        loaded = service.load(archive, report=_reporter(verbose=True))
    _show(context, loaded)


@command.command("inspect")
@click.argument("reference", default="localhost/openclaw-nix:dev")
@output.form_option
@click.pass_obj
def inspect(context: output.Context, reference: str) -> None:
    """Show what an image is and where it comes from.

    Digest, labels, the revision of its source, and the bill of materials (CycloneDX) that an image built with Nix
    carries.

    \b
    Examples:
      claw-runtime image inspect
      claw-runtime image inspect localhost/openclaw-nix:nix -o json
    """
    from claw_runtime.daemon import tools

    with tools.images(context.settings()) as service:
        found = service.inspect(reference)
    _tell(context, found)


@command.command("verify")
@click.argument("reference", default="localhost/openclaw-nix:dev")
@output.form_option
@click.pass_obj
def verify(context: output.Context, reference: str) -> None:
    """Check an image against its own contract.

    Checks its configuration, and runs every tool of the contract once, in a hardened container without a network.

    \b
    Examples:
      claw-runtime image verify
      claw-runtime image verify localhost/openclaw-nix:dev -o json
    """
    from claw_runtime.daemon import tools

    with tools.images(context.settings()) as service:
        try:
            checks = service.verify(reference)
        except VerifyMismatch as error:
            _checks(context, error.facts.get("checks", ()))
            raise
    _checks(context, checks)


def _checks(context: output.Context, checks: object) -> None:
    rows = [(check.name, check.ok, check.detail) for check in checks]  # type: ignore[attr-defined]
    told = [{"check": name, "ok": ok, "detail": detail} for name, ok, detail in rows]
    if output.emitted(context, told, [name for name, _, _ in rows]):
        return
    for name, ok, detail in rows:
        output.line(f"{'ok  ' if ok else 'FAIL'}  {name}: {detail}")
    output.note(f"{sum(ok for _, ok, _ in rows)} passed, {sum(not ok for _, ok, _ in rows)} failed")


def _tell(context: output.Context, found: "Inspection") -> None:
    image, bill = found.image, found.bill
    body = {
        "reference": found.reference,
        "digest": image.digest,
        "id": image.id,
        "size": image.size,
        "application": found.application,
        "revision": found.revision,
    }
    materials = {"form": bill.form, "components": bill.components, "digest": bill.digest} if bill else None
    if output.emitted(context, {**body, "labels": dict(found.labels), "sbom": materials}, [found.reference]):
        return
    materials_line = f"{bill.form} · {bill.components} components · {bill.digest}" if bill else "none in the image"
    output.fields({**body, "size": format_size(image.size), "sbom": materials_line})
    output.line("labels")
    for name, value in sorted(found.labels.items()):
        output.line(f"  {name}={value}")


def _show(context: output.Context, built: object) -> None:
    for item in built:  # type: ignore[attr-defined]
        seconds = {name: round(value, 1) for name, value in item.seconds.items()}
        body = {"reference": item.reference, "digest": item.image.digest, "id": item.image.id}
        if output.emitted(context, {**body, "size": item.image.size, "seconds": seconds}, [item.reference]):
            continue
        output.line(f"{item.reference}  {item.image.digest}  {format_size(item.image.size)}")
        output.note("  " + " · ".join(f"{name} {format_duration(value)}" for name, value in item.seconds.items()))


def _step(line: str) -> str:
    """The readable part of `[1/2] STEP 7/23: RUN …`; empty for other lines and for steps that take no time."""
    heading, separator, command = line.partition(": ")
    if " STEP " not in f" {heading}" or not separator or not command.startswith(("RUN ", "COPY ")):
        return ""
    return f"  {heading.replace('STEP ', '')}  {command.replace('. /mnt/environment && ', '')}"


def _recipes() -> Path:
    """The nearest images/ from here upwards."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "images").is_dir() and (folder / "entrypoint").is_dir():
            return folder / "images"
    raise InvalidSpec(
        "no recipes here",
        why=f"neither {here} nor a folder above has images/",
        hint="run this in a claw checkout, or use --images",
    )


def _reporter(*, verbose: bool) -> Callable[[str], None]:
    """Progress on stderr: all lines with --verbose, else starts and the steps that take time."""
    begun = time.monotonic()

    def report(text: str) -> None:
        shown = text if verbose or text.startswith(_BEGINNINGS) or "is up to date" in text else _step(text)
        if shown:
            output.note(f"{time.monotonic() - begun:6.1f}s  {shown if verbose else shown[:110]}")

    return report
