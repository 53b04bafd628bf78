"""A configuration template has placeholders where credentials go, and nothing that looks like one.

Usage: template_holds_no_secret.py TEMPLATE CONTRACT
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from secrets_in import SECRET
from verdict import refuse

WORDS = ("token", "key", "secret", "password", "passphrase", "credential", "credentials")
_PLACEHOLDER = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")


def leaves(node: object, where: str = "") -> Iterator[tuple[str, str]]:
    """JSON pointer and text of every string in a document."""
    if isinstance(node, str):
        yield where, node
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in pairs:
        yield from leaves(item, f"{where}/{key}")


def check(template: object, secret: set[str]) -> None:
    """Refuse the first leaf that holds a credential of its own. `secret` are the names of secret values."""
    for where, text in leaves(template):
        holds_credential = where.rpartition("/")[2].lower().endswith(WORDS)
        placeholder = _PLACEHOLDER.fullmatch(text)
        if holds_credential and not placeholder:
            refuse(f"{where}: a literal where a credential goes; write a placeholder such as ${{NAME}}")
        if holds_credential and placeholder and placeholder.group(1) not in secret:
            refuse(f"{where}: {placeholder.group(1)} is not marked secret in the contract's values")
        if SECRET.search(text.encode()):
            refuse(f"{where}: looks like a credential")


if __name__ == "__main__":
    try:
        values = json.loads(Path(sys.argv[2]).read_text())["values"]
        check(json.loads(Path(sys.argv[1]).read_text()), {name for name, value in values.items() if value["secret"]})
    except (ValueError, KeyError) as error:
        refuse(f"cannot be read: {type(error).__name__} {error}")
