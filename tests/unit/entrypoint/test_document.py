"""The entrypoint's own JSON says what the `json` package says."""

import json

import pytest
from claw_entrypoint.document import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(DOCUMENTS)
def test_writes_what_json_writes(document: object) -> None:
    """A document is the same text as `json.dumps` makes, on one line and indented."""
    assert json.dumps(document) == dumps(document)
    assert json.dumps(document, indent=2) == dumps(document, indent=2)


@given(DOCUMENTS, st.sampled_from([None, 0, 3]), st.text(" \t\r\n"))
def test_reads_what_json_reads(document: object, indent: int | None, blank: str) -> None:
    """A text that `json` wrote, with any blank around it, is read back as the same document."""
    assert document == loads(blank + json.dumps(document, indent=indent, ensure_ascii=False) + blank)


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[1,]", "{} {}", "nul", "NaN", "-Infinity", '"\n"', "{'a': 1}", "\ufeff{}", "[" * 100_000]
)
def test_refuses_what_is_not_json(text: str) -> None:
    """A text that is not JSON, or too deep to be meant, is a ValueError and never a crash."""
    with pytest.raises(ValueError, match=r"at character|expected|Expecting|deeply|JSON|control"):
        loads(text)


def test_refuses_what_json_has_no_word_for() -> None:
    """A value outside JSON is a TypeError, not some text."""
    with pytest.raises(TypeError, match="set is not JSON"):
        dumps({"a": [{1}]})
