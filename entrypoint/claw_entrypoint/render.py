"""The gateway's configuration: values into the leaves of the parsed template, and nothing else anywhere.

Text is never substituted into text, so that a quote or newline in a value cannot change the document. OpenClaw
expands `${NAME}` once more when it reads the result (and unescapes `$${NAME}`): every leaf is written so that this
second pass gives back exactly the text that was meant, even where two substituted values meet.
"""

from claw_entrypoint.contract import Contract, Operation, is_name
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log

_GONE = object()


def tokens(text: str) -> list[tuple[int, int, str, bool]]:
    """Placeholders of a text, left to right: start, end, name, and whether it is the escaped form `$${NAME}`."""
    found = []
    at = text.find("$")
    while at >= 0:
        escaped = text.startswith("$${", at)
        opening = at + 2 if escaped else at + 1
        end = text.find("}", opening) if text.startswith("{", opening) else -1
        if end >= 0 and is_name(text[opening + 1 : end]):
            found.append((at, end + 1, text[opening + 1 : end], escaped))
            at = text.find("$", end + 1)
        else:
            at = text.find("$", at + 1)
    return found


def escape(text: str) -> str:
    """The text from which OpenClaw's expansion gives `text` back."""
    parts, done = [], 0
    for start, *_ in tokens(text):
        parts += [text[done:start], "$"]
        done = start
    return "".join(parts) + text[done:]


def render(template: object, contract: Contract, given: dict[str, str], log: Log) -> object:
    """The document with every placeholder replaced.

    A leaf whose value is missing is left out; then each feature that misses a value is turned off by the contract's
    operations, with one warning. `given` holds no empty value.

    Raises:
        SeedError: The template names something outside the allowlist, or has a placeholder in a key (when strict).
    """
    document = _fill(template, contract, given, log, "")
    lacking: dict[str, list[str]] = {}
    for value in contract.values.values():
        if value.need == "optional" and value.feature and value.name not in given:
            lacking.setdefault(value.feature, []).append(value.name)
    for feature, names in lacking.items():
        for operation in contract.features.get(feature, ()):
            apply(operation, document)
        log.warning("feature.off", feature=feature, missing=names)
    return None if document is _GONE else document


def _fill(node: object, contract: Contract, given: dict[str, str], log: Log, where: str) -> object:
    if isinstance(node, str):
        return _leaf(node, contract, given, log, where)
    if isinstance(node, list):
        items = [_fill(item, contract, given, log, f"{where}/{index}") for index, item in enumerate(node)]
        return [item for item in items if item is not _GONE]
    if isinstance(node, dict):
        for key in node:
            if any(not escaped for _, _, _, escaped in tokens(key)):
                log.defect(SeedError(f"the template has a placeholder in a key: {where}/{key}", _MEND))
        filled = {key: _fill(item, contract, given, log, f"{where}/{key}") for key, item in node.items()}
        return {key: item for key, item in filled.items() if item is not _GONE}
    return node


_MEND = "mend the template or the contract's `values`, and build the image again"


def _leaf(text: str, contract: Contract, given: dict[str, str], log: Log, where: str) -> object:
    if "$" not in text:
        return text
    parts, done, gone = [], 0, False
    for start, end, name, escaped in tokens(text):
        parts.append(text[done:start])
        done = end
        if escaped:
            parts.append(text[start + 1 : end])
        elif name in given and name in contract.values:
            parts.append(given[name])
        else:
            gone = True
            if name not in contract.values:
                log.defect(SeedError(f"the template's {where} names ${{{name}}}, which is not allowlisted", _MEND))
    return _GONE if gone else escape("".join(parts) + text[done:])


def apply(operation: Operation, document: object) -> None:
    """Change `document` in place; a place that is gone needs no turning off."""
    *parents, last = operation.path
    for part in parents:
        document = _child(document, part)
    if _child(document, last) is _GONE:
        return
    key = int(last) if isinstance(document, list) else last
    if operation.op == "remove":
        del document[key]  # type: ignore[attr-defined]  # `_child` found it: a list or a dict
    else:
        document[key] = operation.value  # type: ignore[index]


def _child(node: object, part: str) -> object:
    if isinstance(node, dict):
        return node.get(part, _GONE)
    if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
        return node[int(part)]
    return _GONE
