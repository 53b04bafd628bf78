"""Stands in for a paid model provider, so that a real gateway can hold a real conversation without a network.

Run it beside the gateway, in the gateway's own network: `python3 -I model_stub.py PORT [LOG]`. It speaks the part of
the OpenAI protocol that OpenClaw uses (`GET /v1/models`, `POST /v1/chat/completions`, plain or streamed), on 127.0.0.1.

Told `run: COMMAND`, it asks for one call of the tool `exec`, and answers with the call's result.

It remembers nothing by itself. Every answer is worked out from the messages of that one request, so a right answer to
"what is my colour?" proves that the gateway kept the conversation: that is what makes it a test of a tenant's state.
Standard library only: it runs inside images that hold nothing of this project's test tools.
"""

import http.server
import json
import re
import sys
import time
from typing import Any

MAX_BODY = 16 * 1024 * 1024  # bytes; a gateway's prompt is about 60 KB
MODEL = "stub-1"

COLOURS = "black|blue|brown|cyan|gold|green|grey|indigo|magenta|orange|pink|purple|red|silver|teal|violet|white|yellow"
_REMEMBER = re.compile(rf"\bremember\b[^?]*?\b({COLOURS})\b", re.IGNORECASE)
_RUN = re.compile(r"(?:^|\s)run: ([^\n]+)")
_QUESTION = re.compile(r"\bcolou?r\b", re.IGNORECASE)

# OpenClaw 2026.9 says more in the person's name than the person did: a message of its own that is one delimited block,
# and a line about the runtime at the end of what was really said (2026.6 does neither).
_INTERNAL = re.compile(
    r"<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>.*?(?:<<<END_OPENCLAW_INTERNAL_CONTEXT>>>|\Z)"
    r"|^Runtime: [^\n]*\bmodel=[^\n]*$",
    re.DOTALL | re.MULTILINE,
)


def spoken(messages: list[dict[str, Any]]) -> list[str]:
    """What the person said, oldest first: the texts of the user messages without the gateway's internal context."""
    texts = []
    for message in messages:
        if message.get("role") != "user":
            continue
        if text := _INTERNAL.sub("", _text(message.get("content"))).strip():
            texts.append(text)
    return texts


def command(body: dict[str, Any]) -> str | None:
    """The command that the person wants to be run, unless it was run already or there is no tool for it."""
    said, messages = spoken(body["messages"]), body["messages"]
    names = [tool.get("function", {}).get("name") for tool in body.get("tools") or []]
    if not said or "exec" not in names or messages[-1].get("role") == "tool":
        return None
    return told[1] if (told := _RUN.search(said[-1])) else None


def reply(messages: list[dict[str, Any]]) -> str:
    """The answer to the last thing the person said, from nothing but these messages."""
    said = spoken(messages)
    if not said:
        return "You have not said anything."
    if _RUN.search(said[-1]):
        return f"result: {_text(messages[-1].get('content'))}" if messages[-1].get("role") == "tool" else "no tool"
    if told := _REMEMBER.search(said[-1]):
        return f"I will remember {told[1].lower()}."
    if not _QUESTION.search(said[-1]):
        return "I can only remember a colour."
    for text in reversed(said[:-1]):
        if told := _REMEMBER.search(text):
            return f"your colour is {told[1].lower()}"
    return "I do not know your colour."


def _text(content: Any) -> str:
    """A message's content as one string; the protocol allows a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


class ModelStub(http.server.ThreadingHTTPServer):
    """The server. `port` 0 takes a free one (see `server_address`); `log` gets one JSON line a request."""

    daemon_threads = True

    def __init__(self, port: int, log: str | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.log = log

    def record(self, entry: dict[str, Any]) -> None:
        """Append what a request looked like. Whether a key came with it is told, the key is not."""
        if self.log:
            with open(self.log, "a", encoding="utf-8") as file:  # one write a line: threads do not interleave
                file.write(json.dumps(entry) + "\n")


class _RequestError(Exception):
    """The request is refused with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelStub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Nothing on stderr: the log file says it better."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self._send(404, _error(f"no such path: {self.path}"))
            return
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "stub"}
        self._send(200, {"object": "list", "data": [model]})

    def do_POST(self) -> None:
        try:
            body = self._body()
        except _RequestError as error:
            self.close_connection = True  # the body may be unread
            self._send(error.status, _error(str(error)))
            return
        wanted = command(body)
        answer = "" if wanted else reply(body["messages"])
        self.server.record(
            {
                "model": body.get("model"),
                "stream": bool(body.get("stream")),
                "roles": [message.get("role") for message in body["messages"]],
                "spoken": spoken(body["messages"]),
                "tools": len(body.get("tools") or []),
                "authorized": bool(self.headers.get("authorization")),
                "answer": answer,
            }
        )
        if body.get("stream"):
            self._stream(body, answer, wanted)
        else:
            message: dict[str, Any] = {"role": "assistant", "content": answer}
            if wanted:
                message["tool_calls"] = [_call(wanted)]
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if wanted else "stop"}
            self._send(200, {**_head(body, "chat.completion"), "choices": [choice], "usage": _usage(answer)})

    def _body(self) -> dict[str, Any]:
        """The request as a dict whose `messages` is a list of dicts."""
        if self.path != "/v1/chat/completions":
            raise _RequestError(404, f"no such path: {self.path}")
        try:
            length = int(self.headers["content-length"])
        except (TypeError, ValueError):
            raise _RequestError(411, "a Content-Length is needed") from None
        if not 0 <= length <= MAX_BODY:
            raise _RequestError(413, f"more than {MAX_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(length))
        except ValueError:
            raise _RequestError(400, "the body is not JSON") from None
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise _RequestError(400, "messages must be a list of objects")
        return body

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any], answer: str, wanted: str | None) -> None:
        """Server-sent events: the role, the answer word by word, the end, the usage when asked for, `[DONE]`."""
        self.close_connection = True  # the end of the stream is the end of the connection
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        head = _head(body, "chat.completion.chunk")
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in re.findall(r"\S+\s*", answer)]
        if wanted:
            deltas.append({"tool_calls": [{"index": 0, **_call(wanted)}]})
        for delta in deltas:
            self._event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self._event(
            {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if wanted else "stop"}]}
        )
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event({**head, "choices": [], "usage": _usage(answer)})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-stub", "object": kind, "created": int(time.time()), "model": body.get("model") or MODEL}


def _call(wanted: str) -> dict[str, Any]:
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": "exec", "arguments": json.dumps({"command": wanted})},
    }


def _usage(answer: str) -> dict[str, int]:
    words = len(answer.split())
    return {"prompt_tokens": 10, "completion_tokens": words, "total_tokens": 10 + words}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}


def main(arguments: list[str]) -> int:
    """Serve until killed. Exit status 2 when the arguments are not `PORT [LOG]`."""
    if len(arguments) not in (1, 2) or not arguments[0].isdecimal():
        print("usage: model_stub.py PORT [LOG]", file=sys.stderr)
        return 2
    with ModelStub(int(arguments[0]), arguments[1] if len(arguments) == 2 else None) as server:
        print(f"model stub on http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
