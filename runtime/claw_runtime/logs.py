"""Logs that never hold a secret: JSON lines on stderr, or lines for people on a terminal, masked before rendering.

Three nets, since each alone has holes: a `Secret` never shows its text, a field whose name looks secret is masked
whatever it holds, and every text that was ever boxed (or given to `redact`) is masked wherever it turns up: in an
event, a nested value, an exception or a traceback, also of libraries that use the standard `logging`.

structlog is imported when logging starts, not with this module, so that a short CLI command does not pay for it.
"""

import hmac
import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, final
from urllib.parse import quote

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

MASK = "[redacted]"
KnownSecrets = dict[str, tuple[str, ...]]
"""Texts to mask: first four characters → texts that begin so, longest first."""
_SHORTEST = 4  # masking every "ab" in a log would make it unreadable and hide nothing
_MAX_DEPTH = 12

_MASKED_WORDS = (
    "apikey auth authorization bearer cookie cookies credential credentials key keys passphrase passwd password"
    " passwords pwd secret secrets token tokens"
)
_WORDS = frozenset(_MASKED_WORDS.split(" "))
_PLAIN_FIELDS = frozenset({"object_key"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_IN_TEXT = (
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"),
    re.compile(
        r"(?i)((?:token|secret|password|passwd|api_?key|access_?key|secret_?key)[\"']?\s?[=:]\s?[\"']?)[^\s&\"',;}{]+"
    ),
    re.compile(r"()(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"),
)

_lock = threading.Lock()
_known: KnownSecrets = {}


@final
class Secret:
    """A text that shows itself only when asked: `str()`, `repr()`, formats, logs and tracebacks see a mask.

    Boxing a text also registers it with `redact`. Comparing takes constant time; pickling is refused.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        redact(text)

    def reveal(self) -> str:
        """The text itself: for the one call that needs it, never for a variable that lives on."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Secret":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised: reveal() it where it is needed")


def redact(value: str) -> None:
    """Mask this text in everything that is logged from now on, also as JSON, `repr` or a URL would write it.

    A text of fewer than four characters is not searched for: it would be found everywhere.
    """
    if len(value) < _SHORTEST:
        return
    with _lock:
        learn(_known, forms(value))


def forms(value: str) -> set[str]:
    """How a text may stand in another: plain, as JSON, `repr` and a URL write it, and its long lines each."""
    found = {value, value.strip(), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    found |= {repr(value)[1:-1], quote(value, safe=""), quote(value)}
    return found | {line for line in value.splitlines() if len(line) >= 3 * _SHORTEST}


def learn(known: KnownSecrets, texts: Iterable[str]) -> None:
    """Add texts to those that `mask` looks for; those of fewer than four characters are left out."""
    for text in texts:
        alike = known.get(text[:_SHORTEST], ())
        if len(text) >= _SHORTEST and text not in alike:
            known[text[:_SHORTEST]] = tuple(sorted((*alike, text), key=len, reverse=True))


def mask(text: str, known: KnownSecrets | None = None) -> str:
    """The text without any registered secret (or those of `known` instead), bearer header, `token=…` pair or password
    in a URL."""
    text = _mask_known(text, _known if known is None else known)
    for pattern in _IN_TEXT:
        text = pattern.sub(rf"\1{MASK}", text)
    return text


def _mask_known(text: str, known: KnownSecrets) -> str:
    """One pass over the text, since a host holds tens of thousands of secrets and writes many lines."""
    parts: list[str] = []
    end = 0  # of what is masked so far; secrets may overlap
    for start in range(len(text) - _SHORTEST + 1):
        for secret in known.get(text[start : start + _SHORTEST], ()):
            if text.startswith(secret, start):
                if start >= end:
                    parts += text[end:start], MASK
                end = max(end, start + len(secret))
                break
    return "".join((*parts, text[end:]))


def looks_secret(name: str) -> bool:
    """Whether a field of this name is masked whatever it holds: `api_key`, `accessToken`, `Authorization`, …"""
    return name not in _PLAIN_FIELDS and any(word.lower() in _WORDS for word in _WORD.findall(name))


def masked(value: object, *, depth: int = 0) -> Any:
    """A copy of a log field in which nothing is secret and everything is a JSON type.

    Mappings and sequences are copied, other objects become their masked `repr`.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return mask(str(value))
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            mask(str(key)): MASK if _hides(str(key), item) else masked(item, depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [masked(item, depth=depth + 1) for item in value]
    return mask(repr(value))


def _hides(name: str, value: object) -> bool:
    return value is not None and not isinstance(value, bool) and looks_secret(name)


def _redaction(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor: last before the renderer, when an exception is text already.

    `_record` and `_from_structlog` belong to structlog, which takes them out itself.
    """
    kept = {name: event_dict[name] for name in ("_record", "_from_structlog") if name in event_dict}
    rest = {name: value for name, value in event_dict.items() if name not in kept}
    return {**masked(rest), **kept}


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that moment, since tests and progress bars replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # a plain attribute above, fixed at start
        return sys.stderr


def configure(*, level: str = "info", as_json: bool | None = None) -> None:
    """Send all logs, structlog's and the standard library's, masked to stderr.

    Args:
        level: Least level that is written: debug, info, warning, error.
        as_json: JSON lines, or lines for people; by default JSON unless stderr is a terminal.
    """
    import structlog

    if as_json is None:
        as_json = not sys.stderr.isatty()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
            processors=[_redaction, structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for noisy in ("botocore", "boto3", "urllib3", "s3transfer", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> "BoundLogger":
    """A logger whose events are `logger.info("slot-ready", slot=…, seconds=…)`.

    Logging that nobody configured yet is configured here, since structlog's own default does not mask.
    """
    import structlog

    if not structlog.is_configured():
        configure(level="warning")
    logger: BoundLogger = structlog.stdlib.get_logger(name)
    return logger
