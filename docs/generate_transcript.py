"""Writes docs/TRANSCRIPT.md from a real run: real Podman, the OpenClaw image, and a separate daemon.

Run it as the user that runs containers. It takes about two minutes:
`python docs/generate_transcript.py docs/TRANSCRIPT.md`. Without an argument the page goes to stdout. As root:
`host/run .venv/bin/python docs/generate_transcript.py > page.md`.

`PAGE` is the page without its outputs. The first characters of a line in a `console` block decide what happens to it:

- `$ `: the line is executed and shown.
- `~ `: the same, but its output is the image's own or depends on time, so another run may print something else.
- `% `: the line is executed and not shown.

All lines go to one shell on a terminal, so the outputs are what a person sees. What differs from run to run and has no
meaning (ids, ports, dates, the data directory) is replaced; durations and sizes are measured.
tests/docs/test_transcript.py compares the page with `PAGE`. tests/integration/test_transcript_run.py executes it with a
small image.
"""

import hashlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

TOP = Path(__file__).resolve().parents[1]
IMAGE = "localhost/openclaw-nix"
ADDRESS = "127.0.0.1:7070"
HOME = "~/.local/share/claw"
LIMIT = 90.0
"""Seconds that one command may take."""

PAGE = """\
# A session at the command line

<!-- Written by docs/generate_transcript.py from a real run: change PAGE there, then run it again. -->

This page shows what an operator types and sees, from the first start to an upgrade that fails and is rolled back. The
run was real: rootless Podman, the [OpenClaw image](IMAGE.md), the S3 server that comes with claw, two cores. The
milliseconds are those of one run beside other load; [BENCHMARKS.md](BENCHMARKS.md) has comparable figures. Ids, ports,
dates and the data directory were replaced. [CLI.md](CLI.md) lists every option, and the [runbook](RUNBOOK.md) shows how
to operate a host.

## The daemon and its pool

The [workload file](examples/openclaw/workload.yaml) asks for two waiting containers, one of them with the gateway's
modules loaded already, and lets two released tenants stay frozen:

```console
$ grep -A 3 '^pool:' ~/.local/share/claw/workloads/openclaw.yaml
$ claw-runtime up --limits drop --listen 127.0.0.1:7070 2> daemon.log &
% filled 2
$ grep -A 1 'is up' daemon.log
$ claw-runtime pool list
$ claw-runtime pool show openclaw
```

## Two tenants

`claim` reports where the container and the state came from, and the time of each step:

```console
$ claw-runtime claim alice --metadata '{"plan": "gold"}'
$ claw-runtime status --watch -n 0.2 > watched.txt &
% watching=$!; sleep 0.5
~ claw-runtime claim bob
% sleep 1; kill $watching; wait $watching
~ cat watched.txt
$ claw-runtime claim alice
$ claw-runtime status
```

On a terminal, `--watch` redraws the table. In a file, as here, it prints each tenant that has changed.

## Inside a container

```console
~ claw-runtime exec alice -- openclaw --version
$ claw-runtime exec alice -- sh -c 'exit 7'; echo "exit code $?"
$ echo 'likes blue' | claw-runtime exec alice -- tee /state/note.md
$ claw-runtime cp alice:/state/note.md copy.md && cat copy.md
$ claw-runtime port alice
~ curl -s "http://$(claw-runtime port alice 18789)/healthz"; echo
~ claw-runtime logs alice --tail 3
~ timeout 1 claw-runtime logs alice --follow --since 10m --tail 1; echo "exit code $?"
```

`logs --follow` continues until the container ends; here, `timeout` ended it.

## Release and return

A release saves the state. The container stays frozen for a while, for alice only:

```console
$ claw-runtime release alice
$ claw-runtime status
$ claw-runtime claim alice
$ claw-runtime exec alice -- cat /state/note.md
$ echo 'and green' | claw-runtime exec alice -- tee -a /state/note.md
```

With `--no-affinity`, nothing of alice stays on this host. The next claim takes another container and restores her state
from the store:

```console
$ claw-runtime release alice --no-affinity
$ claw-runtime sync cat alice note.md
% filled 2
$ claw-runtime claim alice
$ claw-runtime exec alice -- cat /state/note.md
```

## Pools, live

These changes survive a restart of the daemon. A full pool refuses a claim, or lets it wait in line:

```console
~ claw-runtime pool scale openclaw --max 2 --min 0 --warmth created=0 --warmth prewarmed=0
% filled 0
$ claw-runtime claim carol; echo "exit code $?"
$ claw-runtime claim carol --wait 1m > waited.txt 2>&1 &
% waiting=$!; until claw-runtime pool list 2>&1 | grep -q 'in line'; do sleep 0.2; done
$ claw-runtime pool list
$ claw-runtime release bob --no-affinity
% wait $waiting
$ cat waited.txt
~ claw-runtime pool scale openclaw --max 20 --warmth created=1
~ claw-runtime pool drain openclaw
$ claw-runtime claim bob; echo "exit code $?"
$ claw-runtime pool undrain openclaw > /dev/null
~ claw-runtime pool metrics openclaw
% claw-runtime release carol --no-affinity --no-sync > /dev/null 2>&1
```

## For programs

`-o json` and `-o yaml` are one document, `-o name` is for loops, and an error is one JSON object with its code:

```console
$ claw-runtime status alice -o json
$ claw-runtime port alice -o yaml
$ claw-runtime status --state active -o name
$ claw-runtime release dave; echo "exit code $?"
$ claw-runtime release dave -o json; echo "exit code $?"
$ claw-runtime claim 'Dave!'; echo "exit code $?"
```

## Over TCP

A token is shown once. Clients that know only a base URL carry it in the path:

```console
$ TOKEN=$(claw-runtime token create dashboard)
$ curl -s -H "Authorization: Bearer $TOKEN" "http://127.0.0.1:7070/api/v1/activity?tenant=alice&limit=2"; echo
$ BOILERHOUSE_API_URL=http://127.0.0.1:7070/t/$(claw-runtime token create alices-bot --tenant alice --expires 30d)
$ curl -s -X POST "$BOILERHOUSE_API_URL/api/v1/tenants/alice/sync"; echo
$ curl -s "$BOILERHOUSE_API_URL/api/v1/tenants/alice/status"; echo
$ curl -s "$BOILERHOUSE_API_URL/api/v1/tenants/bob/status"; echo
$ claw-runtime token list
$ claw-runtime token revoke dashboard
$ curl -s -H "Authorization: Bearer $TOKEN" http://127.0.0.1:7070/api/v1/tenants; echo
```

## Workload files

```console
$ sed 's/max_size/max_sise/' docs/examples/openclaw/workload.yaml > mistyped.yaml
$ claw-runtime config check mistyped.yaml; echo "exit code $?"
$ claw-runtime config check docs/examples/openclaw/workload-boilerhouse.yaml; echo "exit code $?"
```

## An upgrade that fails, and one that does not

One tenant goes first. The program of the image `broken` ends as it starts:

```console
% claw-runtime claim bob > /dev/null 2>&1
$ claw-runtime upgrade openclaw --image localhost/openclaw-nix:broken --canary alice --dry-run
~ claw-runtime upgrade openclaw --image localhost/openclaw-nix:broken --canary alice; echo "exit code $?"
```

Alice is up again, with the image that she had and her state as it was:

```console
$ claw-runtime status
$ claw-runtime exec alice -- cat /state/note.md
~ claw-runtime upgrade openclaw --image localhost/openclaw-nix:next --canary alice --soak 1
$ claw-runtime upgrade openclaw
```

## Completion

Verbs, options, and the tenants and pools that are there now:

```console
$ source <(claw-runtime completion bash)
$ tab() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _claw_runtime_completion "$1"; echo ${COMPREPLY[*]}; COMPREPLY=(); }
$ tab claw-runtime release ""
$ tab claw-runtime pool sc
```

## Release everyone

```console
$ claw-runtime status --state active -o name | xargs -n 1 claw-runtime release
$ claw-runtime status
$ kill "$(cat ~/.local/share/claw/daemon.lock)"
% while kill -0 "$(cat ~/.local/share/claw/daemon.lock)" 2> /dev/null; do sleep 0.1; done
```
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the page: `text` for readers, or a command that is `ours`, the `image`'s or `hidden`."""

    kind: Literal["text", "ours", "image", "hidden"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where the page is played.

    Attributes:
        image: Name, without a tag, of the images `dev`, `next` and `broken`.
        workload: Text of the workload file, whose id is `openclaw`.
        files: Name to text of files beside it.
        port: The port inside the container that takes the place of OpenClaw's 18789.
    """

    image: str
    workload: str
    files: Mapping[str, str]
    port: int


def lines(page: str) -> Iterator[Line]:
    """The page's lines in order; only `console` blocks have commands.

    Raises:
        ValueError: A line of a block begins with no mark.
    """
    marks: dict[str, Literal["ours", "image", "hidden"]] = {"$ ": "ours", "~ ": "image", "% ": "hidden"}
    inside = False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif inside:
            if line[:2] not in marks:
                raise ValueError(f"no command: {line}")
            yield Line(kind=marks[line[:2]], text=line[2:])
            continue
        yield Line(kind="text", text=line)


def openclaw() -> Stage:
    """The example's workload with one slot prewarmed and two places for frozen tenants."""
    text = (TOP / "docs/examples/openclaw/workload.yaml").read_text(encoding="utf-8")
    before, _, after = text.partition("pool:\n")
    _, _, rest = after.partition("\n\n")
    pool = "pool:\n  max_size: 20\n  warmth: {created: 1, prewarmed: 1, frozen: 2}\n  affinity_timeout: 10m\n"
    return Stage(image=IMAGE, workload=f"{before}{pool}\n{rest}", files={}, port=18789)


@contextmanager
def variants(image: str) -> Iterator[None]:
    """`next` and `broken` of `dev`, for as long as they are needed: a label more, and a program that ends at once."""
    complaint = "openclaw: cannot open the state database: newer schema version"
    programs = {
        "next": "LABEL io.claw.transcript=next",
        "broken": f'ENTRYPOINT ["/bin/sh", "-c", "echo \'{complaint}\' >&2; exit 1"]',
    }
    try:
        for tag, change in programs.items():
            subprocess.run(
                ["podman", "build", "--quiet", "--tag", f"{image}:{tag}", "-"],
                input=f"FROM {image}:dev\n{change}\n", text=True, check=True, capture_output=True,
            )  # fmt: skip
        yield
    finally:
        names = [f"{image}:{tag}" for tag in programs]
        subprocess.run(["podman", "rmi", "--force", *names], check=False, capture_output=True)


class Terminal:
    """One bash on a terminal of its own, 110 columns wide and without colours."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._read, write = pty.openpty()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory, env={**environment, "NO_COLOR": "1", "COLUMNS": "110", "TERM": "dumb"}, text=True,
            stdin=subprocess.PIPE, stdout=write, stderr=write, start_new_session=True,
        )  # fmt: skip
        os.close(write)

    def __enter__(self) -> "Terminal":
        return self

    def run(self, command: str) -> str:
        """What the command and its children print on the terminal.

        Raises:
            RuntimeError: The shell ended, or the command takes more than `LIMIT` seconds.
        """
        if self._bash.stdin is not None:
            self._bash.stdin.write(f"{{ {command}\n}} < /dev/null; printf '\\036\\n'\n")
            self._bash.stdin.flush()
        late = threading.Timer(LIMIT, self.close)
        late.start()
        seen = b""
        try:
            while not seen.endswith(b"\x1e\r\n"):
                seen += os.read(self._read, 65536)
        except OSError as error:
            raise RuntimeError(f"the shell ended in: {command}\n{seen.decode(errors='replace')}") from error
        finally:
            late.cancel()
        text = seen.removesuffix(b"\x1e\r\n").decode(errors="replace").replace("\r\n", "\n")
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)

    def close(self) -> None:
        """End the shell and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait(30)

    def __exit__(self, *_: object) -> None:
        self.close()
        with suppress(OSError):
            self._bash.__exit__(None, None, None)
        os.close(self._read)


class Scrubber:
    """Replaces what differs from run to run by what does not, the same by the same.

    Args:
        words: What stands in the run's texts to what the page says instead.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        self._ports: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._first: datetime | None = None

    def __call__(self, text: str) -> str:
        for word, instead in self._words.items():
            text = text.replace(word, instead)
        text = re.sub(r"claw_[0-9a-f]{8}_[\w-]{43}", "claw_5d2a90f1_…", text)
        text = re.sub(r"\b[0-9a-f]{64}\b", lambda found: self._id(found[0]), text)
        text = re.sub(
            r"(?<=127\.0\.0\.1:)\d{5}|(?<=\"port\": )\d{5}|(?<=\"port\":)\d{5}|(?<=hostPort: )\d{5}", self._port, text
        )
        return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)", self._time, text)

    def _id(self, found: str) -> str:
        return self._ids.setdefault(found, hashlib.sha256(f"id {len(self._ids)}".encode()).hexdigest())

    def _port(self, found: re.Match[str]) -> str:
        return self._ports.setdefault(found[0], str(40001 + len(self._ports)))

    def _time(self, found: re.Match[str]) -> str:
        moment = datetime.fromisoformat(found[0])
        self._first = self._first or moment
        shown = datetime(2026, 1, 5, 9, 0, 0, tzinfo=UTC) + (moment - self._first)
        return shown.isoformat(timespec="milliseconds" if "." in found[0] else "seconds")


def record(stage: Stage, directory: Path) -> str:
    """Play the page and return it with its outputs.

    Args:
        directory: An empty one, with a short path; it becomes the shell's.

    Raises:
        RuntimeError: The shell ended or hung.
    """
    home = directory / "h"
    (home / "workloads").mkdir(parents=True, mode=0o700)
    for name, text in {"openclaw.yaml": stage.workload, **stage.files}.items():
        (home / "workloads" / name).write_text(text, encoding="utf-8")
    (directory / "docs").symlink_to(TOP / "docs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = {str(home): HOME, address: ADDRESS, stage.image: IMAGE, f"{stage.port}/tcp": "18789/tcp"}
    scrub = Scrubber(words | {f"ontainerPort: {stage.port}": "ontainerPort: 18789"})
    told: list[str] = []
    try:
        with Terminal(directory, _environment(home)) as terminal:
            terminal.run(_BEFORE)
            for line in lines(PAGE):
                if line.kind == "text":
                    told.append(line.text)
                    continue
                command = line.text.replace(HOME, str(home)).replace(ADDRESS, address).replace(IMAGE, stage.image)
                printed = scrub(terminal.run(command.replace("18789", str(stage.port))))
                if line.kind != "hidden":
                    told += [f"$ {line.text}", *(one.rstrip() for one in printed.splitlines() if one)]
    finally:
        _clean_up(home)
    return "\n".join(told) + "\n"


_BEFORE = """filled() { until claw-runtime pool list 2> /dev/null | grep -q "^openclaw  *$1 "; do sleep 0.3; done; }"""


def _clean_up(home: Path) -> None:
    """End what a run that failed has left: with the shell its daemon ended, but not the containers."""
    with suppress(FileNotFoundError):
        mine = f"label=io.claw.owner={(home / 'runtime-id').read_text().strip()}"
        found = subprocess.run(["podman", "ps", "-aq", "--filter", mine], check=True, capture_output=True, text=True)
        for name in found.stdout.split():
            subprocess.run(["podman", "rm", "--force", "--time", "0", name], check=False, capture_output=True)


def _environment(home: Path) -> dict[str, str]:
    own = {name: text for name, text in os.environ.items() if not name.startswith(("AWS_", "CLAW_"))}
    keep = {name: os.environ[name] for name in ("CLAW_CGROUP_PARENT", "CLAW_IN_HOLDER") if name in os.environ}
    path = f"{Path(sys.executable).parent}:{own.get('PATH', os.defpath)}"
    return {**own, **keep, "PATH": path, "CLAW_HOME": str(home), "CLAW_RUN": str(home / "run")}


def main() -> None:
    """Command line."""
    directory = Path(tempfile.mkdtemp(prefix="claw-tr-", dir="/tmp"))
    try:
        with variants(IMAGE):
            page = record(openclaw(), directory)
    finally:
        shutil.rmtree(directory)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)


if __name__ == "__main__":
    main()
