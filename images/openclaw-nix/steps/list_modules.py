"""The list of modules for prewarm.mjs: what the gateway loads from its start to the end of a conversation.

Runs the image's gateway once, seeded by the image's entrypoint, in a directory of its own; the model is a stub of this
program, and the homeserver's name leads nowhere. Which module asks for which is the same in each run, the order in
which they are loaded is not. So only those are listed that no other brings along, in an order that all runs agree on:
first what the program itself imports, as it does, then what is asked for late, by name.

Usage: list_modules.py CONTRACT TEMPLATE ENTRYPOINT [PATH=REAL_PATH…] > LIST   (REAL_PATH: where PATH's content is now)
"""

import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PATIENCE = 180.0  # seconds, for each step
QUIET = 8.0  # seconds without a new module; the gateway does some work five seconds after it is ready
TOKEN = "built"  # noqa: S105 - of a gateway that lives for some seconds
VALUES = {
    "OPENCLAW_GATEWAY_TOKEN": TOKEN,
    "OPENCLAW_MATRIX_HOMESERVER": "https://matrix.invalid",
    "OPENCLAW_MATRIX_USER_ID": "@claw:matrix.invalid",
    "OPENCLAW_MATRIX_TOKEN": "none",
    "CLAW_MODEL_API_KEY": "none",
    "CLAW_MODEL_ID": "stub",
}
STARTERS = ("", "dist/entry.js")  # beside the program's main module: they start it, so they are never loaded ahead
KINDS = ("module", "commonjs")


class Model(http.server.BaseHTTPRequestHandler):
    """A model that says one word."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        head = {"id": "stub", "object": "chat.completion.chunk", "created": 0, "model": "stub"}
        for delta, reason in (({"role": "assistant", "content": "word"}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            self.wfile.write(b"data: " + json.dumps(head | {"choices": [choice]}).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")


def replaced(node: Any, places: dict[str, str]) -> Any:
    """The document with every text that begins with a path of `places` moved to where that path is now."""
    if isinstance(node, dict):
        return {replaced(key, places): replaced(item, places) for key, item in node.items()}
    if isinstance(node, list):
        return [replaced(item, places) for item in node]
    if isinstance(node, str) and node.startswith("/"):
        return ":".join(_moved(part, places) for part in node.split(":"))
    if isinstance(node, str) and node.startswith("--") and "=/" in node:
        return f"{node.partition('=')[0]}={_moved(node.partition('=')[2], places)}"
    return node


def _moved(path: str, places: dict[str, str]) -> str:
    for place, real in places.items():
        if path == place or path.startswith(place + "/"):
            return real + path[len(place) :]
    return path


def seeded(contract: Any, template: Any, scratch: Path) -> dict[str, str]:
    """Seed as a start does; the environment of the gateway."""
    from claw_entrypoint.contract import parse
    from claw_entrypoint.log import Log
    from claw_entrypoint.seed import seed

    parsed = parse(contract)
    source = scratch / parsed.template.source.lstrip("/")
    for place in (source.parent, *(scratch / path.lstrip("/") for path in parsed.volumes)):
        place.mkdir(parents=True, exist_ok=True)
    volumes = {path: f"{scratch}{path}" for path in parsed.volumes}
    source.write_text(json.dumps(replaced(template, volumes)))
    seed(parsed, dict(VALUES), Log(strict=True), str(scratch))
    moved: dict[str, str] = replaced(parsed.environment, volumes)
    return moved | parsed.exec.environment | {"TMPDIR": f"{scratch}/tmp", "CLAW_TRACE": f"{scratch}/trace"}  # noqa: S108


def ask(port: int, path: str, body: Any = None) -> Any:
    """The gateway's JSON answer, also to a request that it refuses."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def until(what: str, done: Callable[[], bool], gateway: subprocess.Popen[bytes]) -> None:
    """Wait until `done`. Raises SystemExit when the gateway ends before, or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while gateway.poll() is None and time.monotonic() < deadline:
        try:
            if done():
                return
        except (OSError, ValueError, LookupError, TypeError):
            pass  # not yet
        time.sleep(0.1)
    raise SystemExit(f"list_modules: the gateway was not {what} (exit code {gateway.poll()})")


def converse(contract: Any, environment: dict[str, str], hooks: Path) -> None:
    """Start the gateway, hold a conversation, wait until nothing more is loaded, and end it."""
    program, *arguments = contract["exec"]["argv"]
    port, ready = contract["ports"]["gateway"], contract["probes"]["ready"]
    question = {"model": "openclaw/default", "user": "claw", "messages": [{"role": "user", "content": "hello"}]}

    def is_ready() -> bool:
        return set(ask(port, ready["path"])["failing"]) <= set(ready["ignore_failing"])

    def has_answered() -> bool:
        return "word" in ask(port, "/v1/chat/completions", question)["choices"][0]["message"]["content"]

    def is_quiet() -> bool:
        return time.time() - Path(environment["CLAW_TRACE"]).stat().st_mtime > QUIET

    gateway = subprocess.Popen([program, "--import", str(hooks), *arguments], env=environment, cwd="/", stdout=2)
    try:
        until("ready", is_ready, gateway)
        until("able to answer", has_answered, gateway)
        until("done with loading", is_quiet, gateway)
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(PATIENCE)
    finally:
        gateway.kill()
    if gateway.returncode:
        raise SystemExit(f"list_modules: the gateway ended with {gateway.returncode}")


def ordered(trace: Iterable[str], main: str) -> list[str]:
    """URLs of the modules to load, out of the lines of trace.mjs."""
    loaded: set[str] = set()
    brings: dict[str, list[str]] = {}
    for kind, first_word, url in (line.split() for line in trace):
        if kind == "static":
            brings.setdefault(first_word, []).append(url)
        elif kind == "load" and first_word in KINDS:
            loaded.add(url)
    starters = [f"{main.rpartition('/')[0]}/{name}" if name else main for name in STARTERS]
    first = [child for starter in starters for child in brings.get(starter, ())]
    brought = {child for parent, children in brings.items() if parent not in starters for child in children}
    covered, listed = set(starters), []
    for url in (*first, *sorted(loaded - brought), *sorted(loaded)):  # last, circles that nothing else leads into
        if url in loaded and url not in covered:
            listed.append(url)
            rest = [url]
            while rest:
                covered.add(one := rest.pop())
                rest += [child for child in brings.get(one, ()) if child not in covered]
    return listed


def main(words: list[str]) -> None:
    """Command line."""
    contract, template, entrypoint, *moves = words
    sys.path.insert(0, entrypoint)
    places = dict(move.split("=", 1) for move in moves)
    with tempfile.TemporaryDirectory(prefix="claw-modules-") as name:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        VALUES["CLAW_MODEL_BASE_URL"] = f"http://127.0.0.1:{server.server_address[1]}/v1"
        promised, document = (replaced(json.loads(Path(path).read_text()), places) for path in (contract, template))
        environment = seeded(promised, document, Path(name))
        hooks = Path(__file__).with_name("trace.mjs")
        converse(promised, environment, hooks)
        main_module = next(word for word in promised["exec"]["argv"][1:] if word.startswith("/"))
        text = Path(name, "trace").read_text()
        listed = ordered(text.splitlines(), f"file://{os.path.realpath(main_module)}")
    listed = [url for url in listed if url != hooks.as_uri()]
    if not listed:
        raise SystemExit("list_modules: nothing was loaded")
    print("\n".join(listed))


if __name__ == "__main__":
    main(sys.argv[1:])
