"""Image work that Podman's API lacks or makes hard, through the `podman` command: build, load, import, tag."""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from claw_runtime.engine import volatile
from claw_runtime.engine.refusals import image_missing, podman_fails, podman_missing
from claw_runtime.errors import BuildFailed, ClawError, DiskFull
from claw_runtime.ports import Bind

OnLine = Callable[[str], None]
_LAST_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRecipe:
    """The arguments of `podman build`.

    Attributes:
        context: Directory that COPY sees.
        containerfile: Path of the Containerfile; it may be outside of the context.
        tag: Name of the image.
        volumes: Host directories that are mounted during the build; not part of the image.
        secrets: Secret id → file on this host, for `RUN --mount=type=secret`.
        timestamp: Seconds since the epoch for every file and the image itself; None leaves the real times.
        jobs: How many stages may be built at once.
    """

    context: Path
    containerfile: Path
    tag: str
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[Bind] = ()
    secrets: Mapping[str, Path] = field(default_factory=dict)
    timestamp: int | None = None
    jobs: int = 1


def exists(reference: str) -> bool:
    """Whether this user's store has the image.

    Raises:
        EngineUnavailable: Podman is not installed, or does not work.
    """
    if volatile.has_dead_networks():
        volatile.reset_after_a_kill()
    argv = ["podman", "image", "exists", "--", reference]
    answer = _run(argv)
    if any(symptom in answer.stderr for symptom in volatile.SYMPTOMS):
        if not volatile.reset_after_a_kill():
            raise podman_fails(answer.stderr)
        answer = _run(argv)
    return answer.returncode == 0


def build(recipe: BuildRecipe, on_line: OnLine) -> str:
    """Build an image with the host's network; calls `on_line` with each line of output.

    Returns:
        The image's id, without `sha256:`.

    Raises:
        BuildFailed: With the last lines of the output as `why`.
        DiskFull: There was no room.
        EngineUnavailable: Podman is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="claw-build-") as scratch:
        id_file = Path(scratch) / "id"
        _stream(build_argv(recipe, id_file), on_line, f"building {recipe.tag}")
        return id_file.read_text().strip().removeprefix("sha256:")


def build_argv(recipe: BuildRecipe, id_file: Path) -> list[str]:
    """The command of `build`; the image's id goes to `id_file`."""
    # No --cgroup-parent: buildah 1.28 takes it for the step's own cgroup, and kills all that is in it after the step.
    return [
        "podman",
        "build",
        "--network=host",
        f"--file={recipe.containerfile}",
        f"--tag={recipe.tag}",
        f"--iidfile={id_file}",
        f"--jobs={recipe.jobs}",
        *(f"--build-arg={name}={value}" for name, value in recipe.build_args.items()),
        *(f"--label={name}={value}" for name, value in recipe.labels.items()),
        *(f"--volume={v.source}:{v.target}:{'ro' if v.read_only else 'rw'}" for v in recipe.volumes),
        *(f"--secret=id={name},src={path}" for name, path in recipe.secrets.items()),
        *([] if recipe.timestamp is None else [f"--timestamp={recipe.timestamp}"]),
        "--",
        str(recipe.context),
    ]


def load(source: Path | None, on_line: OnLine) -> list[str]:
    """Load an image archive (plain, gzip, xz or zstd); None reads it from standard input.

    Returns:
        The names that were loaded.

    Raises:
        BuildFailed: The file is missing or no image archive.
        DiskFull: There was no room.
        EngineUnavailable: Podman is not installed.
    """
    what = f"loading {source or 'standard input'}"
    try:
        with _readable_by_podman(source) as path:
            lines = _stream(["podman", "load", f"--input={path}"], on_line, what)
    except (OSError, EOFError, zlib.error) as error:
        raise _failure(what, [str(error)]) from error
    # One line an image on 5.x, all names after one colon on older ones.
    found = [line.partition(":")[2] for line in lines if line.startswith("Loaded image")]
    return [name.strip() for names in found for name in names.split(",")]


@contextmanager
def _readable_by_podman(source: Path | None) -> Iterator[Path]:
    """The archive as a file that Podman can read: 4.3.1 refuses gzip (measured), and accepts plain, xz and zstd."""
    with ExitStack() as stack:
        if source is None:
            source = Path(stack.enter_context(_spooled(sys.stdin.buffer)))
        with source.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        if packed:
            with gzip.open(source) as unpacked:
                source = Path(stack.enter_context(_spooled(unpacked)))
        yield source


@contextmanager
def _spooled(stream: IO[bytes] | gzip.GzipFile) -> Iterator[str]:
    """The stream as a file in Podman's directory: /tmp may be in memory, and an image is large."""
    with tempfile.NamedTemporaryFile(prefix="claw-load-", dir=os.environ.get("TMPDIR", "/var/tmp")) as file:  # noqa: S108
        shutil.copyfileobj(stream, file, 1 << 20)
        file.flush()
        yield file.name


def import_rootfs(tar: Path | None, reference: str, on_line: OnLine, *, changes: Sequence[str] = ()) -> None:
    """Make a tar of a root file system (None: standard input) an image of one layer; replaces what has the name.

    Args:
        changes: Containerfile instructions, such as `ENV LANG=C.UTF-8` or `ENTRYPOINT ["/init"]`.

    Raises:
        BuildFailed, DiskFull, EngineUnavailable: As `load`.
    """
    argv = ["podman", "import", *(f"--change={change}" for change in changes), "--", str(tar or "-"), reference]
    _stream(argv, on_line, f"importing {reference}", stdin=None)


def tag(reference: str, name: str) -> None:
    """Give an image another name; an image that had it loses it. Raises `ImageMissing`, `BuildFailed`."""
    answer = _run(["podman", "tag", "--", reference, name])
    if answer.returncode == 0:
        return
    if not exists(reference):
        raise image_missing(reference)
    raise _failure(f"tagging {reference}", answer.stderr.splitlines())


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise podman_missing() from error


def _stream(argv: Sequence[str], on_line: OnLine, what: str, *, stdin: int | None = subprocess.DEVNULL) -> list[str]:
    """Run to the end and report each line; returns the last lines, or raises the error that they describe."""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    try:
        process = subprocess.Popen(
            argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise podman_missing() from error
    with process:
        try:
            for line in process.stdout or ():
                last.append(line.rstrip("\n"))
                on_line(last[-1])
        except BaseException:
            process.terminate()  # the listener raised: stop the build as well
            raise
    if process.returncode:
        raise _failure(what, list(last))
    return list(last)


def _failure(what: str, lines: Sequence[str]) -> ClawError:
    why = "\n".join(line for line in lines if line.strip())
    if "no space left on device" in why.lower():
        return DiskFull(f"{what} ran out of room", why=why, hint="free space in Podman's store: podman image prune")
    return BuildFailed(f"{what} failed", why=why, hint="the last lines of Podman's output are above")
