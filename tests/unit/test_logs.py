"""A canary that was boxed once never appears in a log, whatever way it takes."""

import copy
import dataclasses
import json
import logging
import pickle
import urllib.parse
from collections.abc import Iterator

import pytest
import structlog
from claw_runtime import logs
from hypothesis import given
from hypothesis import strategies as st

CANARY = 'canary-"7f3\\a9/b c\nsecond-line-of-it'
FORMS = (CANARY, json.dumps(CANARY)[1:-1], repr(CANARY)[1:-1], urllib.parse.quote(CANARY, safe=""), "second-line-of-it")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has its own registry of secrets and leaves logging as it was."""
    monkeypatch.setattr(logs, "_known", {})
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What was logged, parsed; nothing may be on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


@dataclasses.dataclass
class Holder:
    """Something whose repr shows what it holds."""

    plain: str
    boxed: logs.Secret


def log_everywhere(canary: str) -> None:
    """Send the canary down every way that a log takes."""
    boxed = logs.Secret(canary)
    log = logs.get_logger("claw.test")
    event = f"event {canary}"
    log.info(event, value=canary, boxed=boxed, holder=Holder(canary, boxed))
    log.info("nested", tree={"a": [{"b": (canary, {canary})}], canary: 1}, raw=canary.encode())
    log.info("positional %s", canary)
    log.bind(bound=canary).warning("bound")
    structlog.contextvars.bind_contextvars(context=canary)
    try:
        try:
            int(canary)
        except ValueError as cause:
            raise RuntimeError(f"wrapped {canary!r}", {"k": canary}) from cause
    except RuntimeError as error:
        log.exception("raised")
        log.warning("passed", error=error, exc_info=error)
        logging.getLogger("uvicorn.error").exception("foreign %s", canary)
    logging.getLogger("other").warning("foreign", extra={"thing": canary})
    log.info("stacked", stack_info=True, api_key="never-registered-value")


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "console"])
def test_a_canary_never_appears(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Not in an event, a field, a nested field, a key, a context, an exception, its cause, or another library's log."""
    logs.configure(level="debug", as_json=as_json)
    log_everywhere(CANARY)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count(logs.MASK) >= 10
    assert [form for form in FORMS if form in err] == []
    assert "never-registered-value" not in err
    assert "RuntimeError" in err, "the traceback itself is there"


def test_without_the_net_the_canary_would_appear(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """The test above can fail: with the registry cut off, the same calls do leak."""
    monkeypatch.setattr(logs, "redact", lambda value: None)
    logs.configure(level="debug", as_json=True)
    log_everywhere(CANARY)
    assert json.dumps(CANARY)[1:-1] in capsys.readouterr().err


def test_a_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read level, logger, time and event; values keep their JSON types."""
    logs.configure(as_json=True)
    logs.get_logger("claw.pool").info("slot-ready", slot="s1", seconds=0.5, warm=True, none=None, tags=["a"], n=3)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "slot-ready",
        "level": "info",
        "logger": "claw.pool",
        "slot": "s1",
        "seconds": 0.5,
        "warm": True,
        "none": None,
        "tags": ["a"],
        "n": 3,
    }


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """What is below the level is not written, and a chatty library is held at warnings."""
    logs.configure(level="info", as_json=True)
    logs.get_logger("claw").debug("hidden")
    logging.getLogger("botocore.auth").info("hidden")
    logging.getLogger("botocore.auth").warning("shown")
    assert [line["event"] for line in lines(capsys)] == ["shown"]


def test_configuring_twice_does_not_write_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """The second call replaces the first."""
    logs.configure(as_json=True)
    logs.configure(as_json=True)
    logs.get_logger("claw").info("once")
    assert len(lines(capsys)) == 1


def test_a_logger_masks_before_anybody_configured_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Forgetting `configure` costs the form of the lines, never a secret, and stdout stays data."""
    logs.Secret(CANARY)
    logs.get_logger("early").warning("oops", value=CANARY)
    out, err = capsys.readouterr()
    assert out == ""
    assert "oops" in err
    assert "canary" not in err


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "key",
        "secret",
        "password",
        "authorization",
        "Authorization",
        "api_key",
        "accessToken",
        "CLAW_MODEL_API_KEY",
        "set-cookie",
        "aws_secret_access_key",
        "APIKey",
        "tokens",
        "db_password2",
    ],
)
def test_a_secret_looking_field_is_masked(name: str) -> None:
    """By its name alone, in any spelling and at any depth, whatever it holds."""
    assert logs.masked({"a": {name: "v"}, name: ["v", {"x": "v"}]}) == {"a": {name: logs.MASK}, name: logs.MASK}


@pytest.mark.parametrize(
    "name", ["monkey", "keyboard", "tokenizer", "event", "author", "secretary", "object_key", "turkeys"]
)
def test_an_ordinary_field_is_not_masked(name: str) -> None:
    """A word that only contains a secret's name stays readable."""
    assert logs.masked({name: "v"}) == {name: "v"}


def test_absence_is_not_masked() -> None:
    """That there is no token, or whether there is one, is no secret."""
    assert logs.masked({"token": None, "has_token": True}) == {"token": None, "has_token": True}


@pytest.mark.parametrize(
    ("text", "leak"),
    [
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ("GET /x?token=abc123&y=1", "abc123"),
        ('{"api_key": "abc123"}', "abc123"),
        ("https://user:pa55@host/x", "pa55"),
    ],
)
def test_a_secrets_shape_is_masked_in_text(text: str, leak: str) -> None:
    """A header, a query, a JSON member and a URL's password are found without being registered."""
    assert leak in text
    assert leak not in logs.mask(text)


def test_short_texts_are_not_searched_for() -> None:
    """A one-letter secret must not turn every log into masks."""
    logs.Secret("a")
    logs.redact("")
    assert logs.mask("a banana") == "a banana"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    """When one secret begins another, nothing of the longer one remains."""
    logs.redact("abcd1234")
    logs.redact("abcd1234-and-more")
    assert logs.mask("x abcd1234-and-more y") == f"x {logs.MASK} y"


def test_overlapping_secrets_leave_nothing() -> None:
    """Where the end of one secret begins another, both are gone, and what stands beside them stays."""
    logs.redact("abcdXYZW")
    logs.redact("XYZWefgh")
    assert logs.mask("x abcdXYZWefgh y abcdXYZWabcdXYZW") == f"x {logs.MASK} y {logs.MASK}{logs.MASK}"


def test_masking_does_not_slow_down_with_the_number_of_secrets() -> None:
    """A host of 10,000 tenants logs as quickly as an empty one: both take the same number of look-ups."""

    class Counting(dict[str, tuple[str, ...]]):
        looked_up = 0

        def get(self, *arguments):
            self.looked_up += 1
            return super().get(*arguments)

    few, many = Counting(), Counting({f"{n:04x}": (f"{n:04x}-secret",) for n in range(10_000)})
    for known in (few, many):
        logs._known = known
        logs.mask("an ordinary line of a log, as there are many of them")
    assert few.looked_up == many.looked_up > 0


def test_a_deep_or_endless_value_is_cut_off() -> None:
    """A structure that holds itself ends."""
    loop: list[object] = []
    loop.append(loop)
    assert "…" in json.dumps(logs.masked(loop), ensure_ascii=False)


@given(st.text(min_size=8, max_size=60), st.text(max_size=20), st.text(max_size=20))
def test_any_registered_text_is_gone_from_any_text(secret: str, before: str, after: str) -> None:
    """Whatever the secret is made of, and whatever stands around it."""
    logs.redact(secret)
    result = logs.mask(before + secret + after)
    assert secret not in result or secret in logs.MASK


def test_a_secret_shows_itself_only_when_asked() -> None:
    """str, repr, format, f-string, containers and copies see a mask; `reveal` gives the text."""
    box = logs.Secret(CANARY)
    shown = [
        str(box),
        repr(box),
        f"{box}",
        f"{box!r}",
        format(box),
        "".join(map(str, [box])),
        str([box]),
        str({"a": box}),
    ]
    shown += [repr(Holder("x", box)), repr(dataclasses.asdict(Holder("x", box))), repr(copy.deepcopy(box))]
    assert [text for text in shown if "canary" in text] == []
    assert box.reveal() == CANARY
    assert copy.deepcopy(box).reveal() == CANARY


def test_a_secret_does_not_leave_the_process_by_accident() -> None:
    """It is neither JSON nor a pickle, and has no dictionary to dump."""
    box = logs.Secret(CANARY)
    with pytest.raises(TypeError):
        json.dumps(box)
    with pytest.raises(TypeError, match="reveal"):
        pickle.dumps(box)
    assert not hasattr(box, "__dict__")


def test_secrets_compare_by_text_with_secrets_only() -> None:
    """Two boxes of one text are equal; a box is never equal to a bare text."""
    assert logs.Secret("abcdef") == logs.Secret("abcdef")
    assert logs.Secret("abcdef") != logs.Secret("abcdeg")
    assert logs.Secret("abcdef") != "abcdef"
    assert len({logs.Secret("abcdef"), logs.Secret("abcdef")}) == 1
    assert not logs.Secret("")
