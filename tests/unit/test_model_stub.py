"""The model stub must not know anything by itself, or every conversation test would prove nothing."""

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import model_stub

INTERNAL = """<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>
remember red; what is the colour of the sky?
<<<END_OPENCLAW_INTERNAL_CONTEXT>>>"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


@pytest.fixture
def server(log: Path) -> Iterator[model_stub.ModelStub]:
    with model_stub.ModelStub(0, str(log)) as stub:
        thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield stub
        stub.shutdown()
        thread.join()


def call(
    server: model_stub.ModelStub, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, str, str]:
    """Status, content type and body of one request; `body` is sent as JSON unless it is bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    answer = response.read().decode()
    connection.close()
    return response.status, response.headers["content-type"], answer


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts]


def test_it_acknowledges_what_it_is_asked_to_remember() -> None:
    """A colour after "remember" is acknowledged by name."""
    assert model_stub.reply(said("Please remember blue")) == "I will remember blue."


@pytest.mark.parametrize(
    "told",
    ["please remember blue", "Remember that my favourite colour is BLUE.", "[Fri 06:12 UTC] please remember blue"],
)
def test_it_answers_from_an_earlier_message(told: str) -> None:
    """The answer is the colour that an earlier user message asked to remember."""
    assert model_stub.reply(said(told, "what is my colour?")) == "your colour is blue"


def test_it_knows_nothing_that_the_messages_do_not_say() -> None:
    """Without an earlier message it does not know, however often it has answered before."""
    model_stub.reply(said("please remember blue", "what is my colour?"))
    assert "do not know" in model_stub.reply(said("what is my colour?"))


def test_only_the_person_can_tell_it_a_colour() -> None:
    """Neither its own earlier words nor the system prompt count as something the person said."""
    others = [{"role": "system", "content": "remember red"}, {"role": "assistant", "content": "I will remember red."}]
    assert "do not know" in model_stub.reply([*others, *said("what is my colour?")])


def test_the_latest_colour_wins() -> None:
    """A person may change their mind."""
    assert model_stub.reply(said("remember blue", "remember green", "which colour?")) == "your colour is green"


@pytest.mark.parametrize(
    "internal",
    [INTERNAL, INTERNAL.rpartition("\n")[0], "Runtime: agent=main | remember red | model=claw/stub-1 | which colour?"],
)
def test_the_gateways_internal_messages_are_ignored(internal: str) -> None:
    """A user message that the gateway made up is neither the question nor a memory, wherever it stands."""
    asked = said("remember blue", internal, "what is my colour?", internal)
    assert model_stub.reply(asked) == "your colour is blue"
    assert "do not know" in model_stub.reply(said(internal, "what is my colour?", internal))


def test_what_surrounds_internal_context_is_the_persons() -> None:
    """A block or runtime line inside a message is cut out of it, and the rest stays."""
    assert model_stub.spoken(said(f"remember {INTERNAL} blue")) == ["remember  blue"]
    runtime = "Runtime: agent=main | os=Linux | model=claw/stub-1 | channel=webchat"
    assert model_stub.spoken(said(f"[Fri 06:54 UTC] remember blue\n\n{runtime}")) == ["[Fri 06:54 UTC] remember blue"]
    assert model_stub.spoken(said("Runtime: two hours")) == ["Runtime: two hours"]


def test_content_may_be_a_list_of_parts() -> None:
    """The protocol allows a message's content as typed parts; parts without text are skipped."""
    parts = [{"type": "text", "text": "remember"}, {"type": "image_url"}, {"type": "text", "text": "teal"}]
    assert model_stub.reply([{"role": "user", "content": parts}]) == "I will remember teal."


def test_it_lists_its_model(server: model_stub.ModelStub) -> None:
    """`GET /v1/models` names the one model."""
    status, _, body = call(server, "GET", "/v1/models")
    assert (status, [model["id"] for model in json.loads(body)["data"]]) == (200, ["stub-1"])


def test_a_plain_answer_is_one_json_document(server: model_stub.ModelStub) -> None:
    """Without `stream` the answer is one chat.completion."""
    status, kind, body = call(server, "POST", "/v1/chat/completions", {"model": "m", "messages": said("remember blue")})
    answer = json.loads(body)
    assert (status, kind, answer["object"], answer["model"]) == (200, "application/json", "chat.completion", "m")
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "I will remember blue."}
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("usage", [True, False])
def test_a_streamed_answer_is_events_that_end_with_done(server: model_stub.ModelStub, usage: bool) -> None:
    """The deltas add up to the answer, usage comes only when asked for, and `[DONE]` is last."""
    request = {
        "messages": said("remember blue", "what colour?"),
        "stream": True,
        "stream_options": {"include_usage": usage},
    }
    status, kind, body = call(server, "POST", "/v1/chat/completions", request)
    events = [event.removeprefix("data: ") for event in body.split("\n\n") if event]
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert (status, kind, events[-1]) == (200, "text/event-stream", "[DONE]")
    assert text == "your colour is blue"
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}
    assert any("usage" in chunk for chunk in chunks) is usage


def test_the_log_tells_the_request_but_not_the_key(server: model_stub.ModelStub, log: Path) -> None:
    """One JSON line a request, in which the provider's key does not appear."""
    body = {"messages": said("remember blue"), "tools": [{}, {}]}
    call(server, "POST", "/v1/chat/completions", body, authorization="Bearer sk-canary")
    (line,) = log.read_text().splitlines()
    entry = json.loads(line)
    assert "sk-canary" not in line
    assert (entry["authorized"], entry["tools"], entry["spoken"]) == (True, 2, ["remember blue"])


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("POST", "/v1/embeddings", {}, 404),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", [], 400),
        ("POST", "/v1/chat/completions", {"messages": ["text"]}, 400),
        ("POST", "/v1/chat/completions", {}, 400),
    ],
)
def test_bad_requests_are_refused(server: model_stub.ModelStub, method: str, path: str, body: Any, status: int) -> None:
    """A request that is not the protocol's gets its status and a JSON error, and the server lives on."""
    seen, _, answer = call(server, method, path, body)
    assert (seen, "error" in json.loads(answer)) == (status, True)
    assert call(server, "GET", "/v1/models")[0] == 200


def test_a_body_beyond_the_limit_is_refused_unread(server: model_stub.ModelStub) -> None:
    """The announced length alone is enough to refuse."""
    headers = {"Content-Length": str(model_stub.MAX_BODY + 1)}
    assert call(server, "POST", "/v1/chat/completions", None, **headers)[0] == 413


def test_it_listens_on_loopback_only(server: model_stub.ModelStub) -> None:
    """No other machine can reach it."""
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.spawns
def test_it_runs_isolated_and_says_where() -> None:
    """`python3 -I model_stub.py 0` takes a free port, tells its URL and answers there."""
    argv = [sys.executable, "-I", model_stub.__file__, "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1]
            connection = http.client.HTTPConnection(url.split("/")[2], timeout=5)
            connection.request("GET", "/v1/models")
            response = connection.getresponse()
            assert (response.status, b"stub-1" in response.read()) == (200, True)
            connection.close()
        finally:
            process.terminate()


@pytest.mark.parametrize("arguments", [[], ["x"], ["-1"], ["1", "log", "more"]])
def test_wrong_arguments_are_reported(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Anything but `PORT [LOG]` ends with status 2 and the usage."""
    assert model_stub.main(arguments) == 2
    assert "PORT [LOG]" in capsys.readouterr().err


TOOLS = [{"type": "function", "function": {"name": "exec"}}]


@pytest.mark.parametrize("stream", [False, True])
def test_it_asks_for_a_command_and_tells_its_result(server: model_stub.ModelStub, stream: bool) -> None:
    """`run: …` becomes one call of the tool `exec`; the result of that call is the answer."""
    body = {"messages": said("run: echo hi; id"), "tools": TOOLS, "stream": stream}
    asked = call(server, "POST", "/v1/chat/completions", body)[2]
    assert json.dumps(json.dumps({"command": "echo hi; id"})) in asked
    assert '"finish_reason": "tool_calls"' in asked
    body["messages"].append({"role": "tool", "content": [{"type": "text", "text": "hi"}]})  # type: ignore[attr-defined]
    answered = call(server, "POST", "/v1/chat/completions", body)[2]
    assert "result:" in answered
    assert '"finish_reason": "stop"' in answered


def test_without_the_tool_it_asks_for_nothing(server: model_stub.ModelStub) -> None:
    """The answer says so, since a test would wait for ever."""
    answer = call(server, "POST", "/v1/chat/completions", {"messages": said("run: id")})[2]
    assert "no tool" in answer
    assert "tool_calls" not in answer
