"""`claw-runtime sync push`, `pull`, `export` and `import`: move a state into the store or out of it."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO

import click

from claw_runtime.cli import output
from claw_runtime.cli.arguments import tenant_argument
from claw_runtime.cli.progress import Progress, posted, streamed
from claw_runtime.errors import ClawError
from claw_runtime.units import format_size

generation_option = click.option(
    "-g", "--generation", type=click.IntRange(1), help="Use this generation, not the newest."
)


@click.command("push")
@tenant_argument
@output.form_option
@click.pass_obj
def push(context: output.Context, tenant: str) -> None:
    """Commit a running tenant's state now; it keeps running.

    \b
    Examples:
      claw-runtime sync push alice
    """
    answer = posted(context, "push", tenant, f"/api/v1/tenants/{tenant}/sync", {"direction": "upload"})
    if output.emitted(context, answer, [answer["generation"]]):
        return
    for result in answer["results"]:
        told = result["note"] or f"{format_size(result['bytesTransferred'])} uploaded"
        output.line(f"{tenant}: generation {answer['generation']}: {told}")
        if not result["success"]:
            raise ClawError(f"the state of {tenant} is not stored", why="; ".join(result["errors"]))
    for report in answer["reported"]:
        output.note(f"  note: {output.clean(report)}")


@click.command("pull")
@tenant_argument
@generation_option
@click.option(
    "--to", "target", required=True, type=click.Path(path_type=Path), help="A directory, empty or not yet created."
)
@click.pass_obj
def pull(context: output.Context, tenant: str, generation: int | None, target: Path) -> None:
    """Download a generation into a directory. The tenant is not affected.

    Every digest is checked. A claim restores the newest generation automatically.

    \b
    Examples:
      claw-runtime sync pull alice --to ./alice
      claw-runtime sync pull alice -g 12 --to /tmp/before
    """
    from claw_runtime.interchange.untar import TornTar, unpack

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise click.BadParameter(f"{str(target)!r} exists and is not an empty directory.", param_hint="'--to'")
    stream = _Stream(streamed(context, "pull", tenant, generation))
    stream.wait()  # an error comes before a directory is made
    target.mkdir(parents=True, exist_ok=True)
    try:
        copied = unpack(stream, target, name=tenant, contents=True, state=True)  # type: ignore[arg-type]
    except TornTar as error:
        raise ClawError(
            f"the state of {tenant} was downloaded only in part",
            why=str(error),
            hint=f"{target} is incomplete; check the store: claw-runtime sync verify {tenant}",
        ) from error
    for skipped in copied.skipped:
        output.note(f"left out: {output.clean(skipped.path)}: {output.clean(skipped.reason)}")
    output.note(f"{tenant}: {output.counted(copied.files, 'file')}, {format_size(copied.bytes)} in {target}")


@click.command("export")
@tenant_argument
@generation_option
@click.argument("target", default="-", type=click.Path(allow_dash=True))
@click.pass_obj
def export(context: output.Context, tenant: str, generation: int | None, target: str) -> None:
    """Write a generation as a tar, to TARGET or to standard output.

    \b
    Examples:
      claw-runtime sync export alice alice.tar
      claw-runtime sync export alice | zstd > alice.tar.zst
    """
    if target == "-" and sys.stdout.isatty():
        raise click.UsageError("Standard output is a terminal; redirect the tar archive to a file.")
    pieces = streamed(context, "export", tenant, generation)
    first = next(pieces, b"")  # an error comes before a file is made
    if target == "-":
        size = 0
        for piece in chain((first,), pieces):
            output.raw(piece)
            size += len(piece)
    else:
        size = _replaced(Path(target), first, pieces)
    output.note(f"{tenant}: {format_size(size)} written")


def _replaced(target: Path, first: bytes, rest: Iterator[bytes]) -> int:
    """A file that gets its name when it is complete; an existing file stays until then."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        made = Path(file.name)
        try:
            size = _written(file, first, rest)
            made.replace(target)
        except BaseException:
            made.unlink()
            raise
    return size


def _written(out: IO[bytes], first: bytes, rest: Iterator[bytes]) -> int:
    size = 0
    for piece in chain((first,), rest):
        out.write(piece)
        size += len(piece)
    out.flush()
    return size


@click.command("import")
@tenant_argument
@click.argument("source")
@click.option("--replace", is_flag=True, help="Replace an existing state, which stays as an earlier generation.")
@output.form_option
@click.pass_obj
def bring(context: output.Context, tenant: str, source: str, replace: bool) -> None:
    """Import a directory or a tar as a tenant's first generation.

    SOURCE is a directory, a tar (plain or compressed with gzip, xz, bzip2 or zstd), - for a tar on standard input, or
    s3://bucket/prefix?endpoint=URL for files that rclone or boilerhouse wrote, one object each; the keys are those of
    the settings, or of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

    \b
    Examples:
      claw-runtime sync import alice ./alice
      claw-runtime sync import bob bob.tar.zst
      claw-runtime sync import alice s3://openclaw/tenants/alice?endpoint=http://127.0.0.1:9000
    """
    with ExitStack() as stack:
        path = _local(context, tenant, source, stack)
        body = {"source": str(path), "replace": replace}
        answer = posted(context, "import", tenant, f"/api/v1/tenants/{tenant}/import", body)
    if output.emitted(context, answer, [answer["generation"]]):
        return
    files = f"{output.counted(answer['files'], 'file')}, {format_size(answer['bytes'])}"
    output.line(f"{tenant}: generation {answer['generation']}, {files}")
    for told in answer["reported"]:
        output.note(f"  {output.clean(told)}")


def _local(context: output.Context, tenant: str, source: str, stack: ExitStack) -> Path:
    """The source as a file or directory of this host; a temporary one is removed with the stack."""
    if source.startswith("s3://"):
        from claw_runtime.daemon.stores import foreign_store
        from claw_runtime.interchange.bucket_in import gather

        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="claw-import-")))
        with Progress("fetch", tenant) as progress:
            found = gather(foreign_store(context.settings(), source), directory, progress.of)
        for skipped in found:
            output.note(f"left out: {output.clean(skipped.path)}: {skipped.reason}")
        return directory
    if source == "-":
        spooled = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="claw-import-"))) / "tar"
        with spooled.open("xb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return spooled
    if not Path(source).exists():
        raise click.BadParameter(f"{source!r} does not exist.", param_hint="'SOURCE'")
    return Path(source).absolute()


class _Stream:
    """A file object that reads sequentially from pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def wait(self) -> None:
        """Wait for the first piece."""
        self._rest = next(self._pieces, b"")

    def read(self, size: int = -1) -> bytes:
        parts, missing = [], size
        while missing != 0:
            if not self._rest:
                self._rest = next(self._pieces, b"")
                if not self._rest:
                    break
            part = self._rest if missing < 0 else self._rest[:missing]
            self._rest = self._rest[len(part) :]
            parts.append(part)
            missing = missing if missing < 0 else missing - len(part)
        return b"".join(parts)
