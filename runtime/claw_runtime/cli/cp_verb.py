"""`claw-runtime cp`."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from claw_runtime.cli import output, running
from claw_runtime.cli.arguments import LIVE
from claw_runtime.errors import EngineFailed, StateMissing
from claw_runtime.tenancy import TenantId, tenant_id
from claw_runtime.units import format_size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_IN_TENANT = re.compile(r"([^/:]*):(.*)", re.DOTALL)


class CopyPath(click.ParamType[str]):
    """`TENANT:PATH`, a path of this host, or `-`."""

    name = "path"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[str]]":
        from click.shell_completion import CompletionItem

        tenants = [] if "/" in incomplete else LIVE.shell_complete(ctx, param, incomplete)
        for item in tenants:
            item.value += ":"
        return [*tenants, CompletionItem(incomplete, type="file")]


@click.command("cp")
@click.argument("source", type=CopyPath())
@click.argument("target", type=CopyPath())
@click.pass_obj
def command(context: output.Context, source: str, target: str) -> None:
    """Copy files into a tenant's container, or out of it.

    One of the two is TENANT:PATH, the other a path of this host, or - for a tar on standard input or output. A
    directory is copied with its contents, into TARGET if that is an existing directory; DIRECTORY/. means only its
    contents. A path of this host with a colon in it must begin with ./ or /.

    Files that come out belong to you; files that go in belong to the program. Links are copied as links. Links that
    lead out of the copied directory, devices and other special files are left out, and each is named.

    \b
    Examples:
      claw-runtime cp alice:/state/workspace ./backup
      claw-runtime cp notes.md alice:/state/workspace/
      claw-runtime cp alice:/state/. - | tar -tv
    """
    outward, inward = _IN_TENANT.fullmatch(source), _IN_TENANT.fullmatch(target)
    if outward and inward:
        raise click.UsageError(f"for two tenants, use claw-runtime cp {source} - | claw-runtime cp - {target}")
    if outward:
        _copy_out(context, tenant_id(outward[1]), outward[2], target)
    elif inward:
        _copy_in(context, source, tenant_id(inward[1]), inward[2])
    else:
        raise click.UsageError("One of SOURCE and TARGET is TENANT:PATH, such as alice:/state/notes.md.")


def _copy_in(context: output.Context, source: str, tenant: TenantId, path: str) -> None:
    from claw_runtime.engine.command import copy_in_argv

    if source == "-":
        if sys.stdin.isatty():
            raise click.UsageError("Standard input is a terminal; pipe a tar archive into it.")
    elif not os.path.lexists(source):
        raise click.BadParameter(f"{source!r} does not exist.", param_hint="'SOURCE'")
    else:
        # Absolute, so that Podman does not take what stands before a colon for a container.
        source = f"{Path(source).absolute()}{'/.' if source.rpartition('/')[2] == '.' else ''}"
    argv = copy_in_argv(running.container_of(context, tenant), source, path)
    try:
        running.run(argv, stdin=None if source == "-" else subprocess.DEVNULL)
    except EngineFailed as error:
        raise _missing(error, tenant, path) from error


def _copy_out(context: output.Context, tenant: TenantId, path: str, target: str) -> None:
    from claw_runtime.engine.command import copy_out_argv

    if target == "-" and sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal; redirect the tar archive to a file.")
    argv = copy_out_argv(running.container_of(context, tenant), path)
    try:
        if target == "-":
            running.run(argv, stdout=None)
        else:
            _unpack(argv, path, target)
    except EngineFailed as error:
        raise _missing(error, tenant, path) from error


def _unpack(argv: list[str], path: str, target: str) -> None:
    from claw_runtime.interchange.untar import TornTar, unpack

    name = path.rstrip("/").rpartition("/")[2] or "root"
    contents = path.rpartition("/")[2] == "."
    place = Path(target)
    if target.endswith("/") and not place.is_dir():
        raise click.BadParameter(f"{target!r} is not an existing directory.", param_hint="'TARGET'")
    with tempfile.TemporaryFile() as said, running.started(argv, stderr=said) as podman:
        assert podman.stdout is not None  # noqa: S101 - a pipe was asked for
        torn = ""
        try:
            copied = unpack(podman.stdout, place, name=name, contents=contents)
        except TornTar as error:
            torn, copied = str(error), None
        podman.stdout.close()
        code = podman.wait()
        said.seek(0)
        if copied is None:
            raise running.refused(argv, said.read() if code else torn.encode())
    for skipped in copied.skipped:
        output.note(f"left out: {skipped.path}: {skipped.reason}")
    output.note(f"{output.counted(copied.files, 'file')}, {format_size(copied.bytes)}")


def _missing(error: EngineFailed, tenant: str, path: str) -> EngineFailed | StateMissing:
    """Translate Podman's error for a missing path."""
    if "could not be found on container" not in error.why:
        return error
    return StateMissing(
        f"{tenant} has no {path}",
        why="no such file in its container",
        hint=f"claw-runtime exec {tenant} -- ls -la /state",
    )
