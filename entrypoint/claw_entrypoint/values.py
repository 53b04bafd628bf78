"""Values for the allowlist's names, each from the first of three places that has it.

The runtime's file, then a file that `NAME_FILE` names (a mounted secret), then the environment; nothing else is read.
"""

import os
from _collections_abc import Iterator

from claw_entrypoint.contract import Contract, is_name
from claw_entrypoint.document import loads
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from claw_entrypoint.places import read_file

PLACE = "/run/claw/values.json"
_TAKEN = "is `${NAME}` as a whole, or another form that OpenClaw resolves as a reference to a variable"
_ANOTHER = "no configuration can hold such a text as a secret: get another secret from its service"


def collect(contract: Contract, environment: dict[str, str], log: Log, prefix: str = "") -> dict[str, str]:
    """Name to value, for every allowlisted name that has one somewhere. An empty text is no value.

    Raises:
        SeedError: A source is unreadable or not as it must be, or a value holds a NUL (when strict).
    """
    handed = _handed_over(contract, log, prefix)
    given = {}
    for name in contract.values:
        for source, value in _sources(name, handed, environment, log):
            if value and _is_plain(name, value, source, log):
                if contract.values[name].secret and is_reference(value):
                    log.defect(SeedError(f"{name} from {source} {_TAKEN}", _ANOTHER))
                given[name] = value
                break
    return given


def is_reference(text: str) -> bool:
    """Whether OpenClaw takes such a secret, once its configuration is expanded, for a reference to a variable."""
    text = text.strip()
    forms = (("${", "}"), ("$", ""), ("secretref-env:", ""), ("__env__:", ""))
    return any(
        text.startswith(before) and text.endswith(after) and is_name(text[len(before) : len(text) - len(after)])
        for before, after in forms
    )


def _sources(
    name: str, handed: dict[str, str], environment: dict[str, str], log: Log
) -> Iterator[tuple[str, str | None]]:
    """Lazily, so that a source that is overruled is not even read."""
    yield PLACE, handed.get(name)
    yield f"the file that {name}_FILE names", _from_file(name, environment, log)
    yield "the environment", environment.get(name)


def scrub(contract: Contract, environment: dict[str, str]) -> dict[str, str]:
    """The environment without the allowlist's names: the gateway has their values in its configuration already."""
    hidden = {form for name in contract.values for form in (name, f"{name}_FILE")}
    return {name: value for name, value in environment.items() if name not in hidden}


def _handed_over(contract: Contract, log: Log, prefix: str) -> dict[str, str]:
    """What the runtime left for this start: `{"v": 1, "values": {NAME: text}}`."""
    hint = "the runtime writes this file at each claim; look at its log"
    try:
        document = loads(read_file(prefix + PLACE).decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        log.defect(SeedError(f"cannot read {PLACE}: {error.strerror}", hint))
        return {}
    except ValueError:
        log.defect(SeedError(f"{PLACE} is not JSON in UTF-8", hint))  # the reason might quote the text
        return {}
    values = document.get("values") if isinstance(document, dict) and document.get("v") == 1 else None
    if not isinstance(values, dict):
        log.defect(SeedError(f"{PLACE} is not of the form {{'v': 1, 'values': {{NAME: text}}}}", hint))
        return {}
    accepted = {}
    for name, value in values.items():
        if name not in contract.values:
            log.defect(SeedError(f"{PLACE} holds {name}, which the contract does not allow", hint))
        elif not isinstance(value, str):
            log.defect(SeedError(f"{PLACE}: {name} is not a text", hint))
        else:
            accepted[name] = value
    return accepted


def _from_file(name: str, environment: dict[str, str], log: Log) -> str | None:
    path = environment.get(f"{name}_FILE")
    if not path:
        return None
    hint = f"mount the secret at that path, readable by uid {os.geteuid()}, or unset {name}_FILE"
    try:
        return read_file(path).decode().removeprefix("\ufeff").rstrip("\r\n")
    except OSError as error:
        log.defect(SeedError(f"{name}_FILE: cannot read {path}: {error.strerror}", hint))
    except UnicodeDecodeError:
        log.defect(SeedError(f"{name}_FILE: {path} is not UTF-8 text", hint))
    return None


def _is_plain(name: str, value: str, source: str, log: Log) -> bool:
    if "\0" in value:
        log.defect(SeedError(f"{name} from {source} holds a NUL character", f"set {name} to plain text"))
        return False
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            log.defect(SeedError(f"{name} from {source} is not UTF-8 text", f"set {name} to plain text"))
            return False
    return True
