"""Values reach the leaves they are meant for, survive OpenClaw's second expansion, and go nowhere else."""

import json
import string
from typing import Any

import pytest
from claw_entrypoint.contract import Contract, parse
from claw_entrypoint.errors import SeedError
from claw_entrypoint.log import Log
from claw_entrypoint.render import escape, render
from fakes.image_root import contract_document, events, template_document
from hypothesis import example, given
from hypothesis import strategies as st

LAST_WORDS = st.text("$${}}{AB_09a: ", max_size=24)
CANARY = {"A": "canary-a", "B": "canary-b", "AB": "canary-ab", "_": "canary-_", "HOME": "canary-home"}


def expand(text: str, environment: dict[str, str]) -> str:
    """OpenClaw's expansion of one configuration text, modelled on the behaviour that its documentation describes."""
    first, rest = string.ascii_uppercase + "_", string.ascii_uppercase + string.digits + "_"

    def name_at(start: int) -> str | None:
        end = text.find("}", start)
        name = text[start:end] if end >= 0 else ""
        return name if name and name[0] in first and all(c in rest for c in name) else None

    out, at = "", 0
    while at < len(text):
        if text.startswith("$${", at) and (name := name_at(at + 3)) is not None:
            out, at = out + "${" + name + "}", at + len(name) + 4
        elif text.startswith("${", at) and (name := name_at(at + 2)) is not None:
            out, at = out + environment.get(name, "UNSET"), at + len(name) + 3
        else:
            out, at = out + text[at], at + 1
    return out


def contract_of(*names: str, **features: list[dict[str, object]]) -> Contract:
    """A contract whose allowlist is these optional names; a feature covers the names that begin with its own."""
    document = contract_document()
    del document["probes"]["ready"]["bearer"], document["discovery"]
    document["features"] = features
    document["values"] = {
        name: {"need": "optional", "secret": True, "feature": next((f for f in features if name.startswith(f)), "")}
        for name in names
    }
    return parse(document)


def filled(template: object, contract: Contract, **values: str) -> Any:
    return render(template, contract, values, Log(strict=True))


@given(LAST_WORDS)
@example("$${A}")
@example("$$${A}${B}$")
@example("${$${A}}")
def test_any_text_survives_the_second_expansion(text: str) -> None:
    """Whatever a text holds, OpenClaw reads back that text, and no variable of the gateway gets into it."""
    assert text == expand(escape(text), CANARY)


@given(LAST_WORDS, LAST_WORDS, LAST_WORDS)
@example("$", "{HOME}", "")
@example("$", "${HOME}", "$")
@example("${HO", "ME}", "")
def test_values_that_meet_in_one_leaf_cannot_form_a_placeholder(one: str, two: str, between: str) -> None:
    """Two values side by side, and text of the template between them, are read as their plain concatenation."""
    between = between.replace("$", "").replace("{", "").replace("}", "")
    document = filled({"leaf": "${ONE}" + between + "${TWO}"}, contract_of("ONE", "TWO"), ONE=one, TWO=two)

    assert one + between + two == expand(document["leaf"], CANARY)


@given(st.text(max_size=30))
def test_a_value_cannot_change_the_document(value: str) -> None:
    """Quotes, newlines, braces: the parsed result is the template with that one leaf replaced."""
    document = filled({"a": ["${ONE}", 1], "b": {"c": None}}, contract_of("ONE"), ONE=value)

    assert {"a": [escape(value), 1], "b": {"c": None}} == json.loads(json.dumps(document))


def test_substitution_is_not_recursive() -> None:
    """A value that looks like another allowlisted placeholder stays text."""
    document = filled({"leaf": "${ONE}"}, contract_of("ONE", "TWO"), ONE="${TWO}", TWO="secret")

    assert document == {"leaf": "$${TWO}"}


def test_an_escaped_placeholder_of_the_template_is_left_for_openclaw() -> None:
    """`$${NAME}` stays as it is, allowlisted or not, alone or beside a value."""
    template = ["$${ONE}", "$${OTHER} ${ONE}", "$$${ONE}", "${lower} $ONE ${}"]

    assert filled(template, contract_of("ONE"), ONE="x") == ["$${ONE}", "$${OTHER} x", "$$${ONE}", "${lower} $ONE ${}"]


def test_a_name_outside_the_allowlist_ends_the_start() -> None:
    """The error names the placeholder and its place, whatever the environment holds."""
    with pytest.raises(SeedError, match=r"/a/0 names \$\{HOME\}, which is not allowlisted"):
        render({"a": ["${HOME}"]}, contract_of("ONE"), {"HOME": "/root", "ONE": "x"}, Log(strict=True))


def test_a_placeholder_in_a_key_ends_the_start() -> None:
    """Keys are never substituted, and a template that expects it is refused."""
    with pytest.raises(SeedError, match=r"placeholder in a key: /a/\$\{ONE\}"):
        filled({"a": {"${ONE}": 1}}, contract_of("ONE"), ONE="x")


def test_for_a_command_a_bad_template_is_only_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    """Leniently the leaf with the unknown name is left out, and the rest is rendered."""
    document = render({"a": "${HOME}", "b": "${ONE}"}, contract_of("ONE"), {"ONE": "x"}, Log(strict=False))

    assert document == {"b": "x"}
    assert [event["event"] for event in events(capfd.readouterr().err)] == ["seed.defect"]


def test_a_missing_optional_value_removes_its_leaf_and_turns_its_feature_off(capfd: pytest.CaptureFixture[str]) -> None:
    """Leaves go from objects and arrays, operations follow, and one warning names what is missing."""
    contract = contract_of(
        "mail_A".upper(),
        "MAIL_B",
        MAIL=[
            {"op": "replace", "path": "/mail/enabled", "value": False},
            {"op": "remove", "path": "/list/1"},
            {"op": "remove", "path": "/gone/too"},
            {"op": "replace", "path": "/list/7", "value": 0},
        ],
    )
    template = {"mail": {"enabled": True, "a": "${MAIL_A}", "b": "${MAIL_B}"}, "list": ["${MAIL_B}", 1, 2]}

    document = filled(template, contract, MAIL_A="here")

    assert document == {"mail": {"enabled": False, "a": "here"}, "list": [1]}
    [warning] = events(capfd.readouterr().err)
    assert (
        warning["level"],
        warning["event"],
        warning["feature"],
        warning["missing"],
    ) == ("warning", "feature.off", "MAIL", ["MAIL_B"])


def test_the_real_template_without_any_value_keeps_no_placeholder(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing half-configured is left: no provider, no model, matrix and pages off, and four warnings say so."""
    document = filled(template_document(), parse(contract_document()), OPENCLAW_GATEWAY_TOKEN="t")

    assert "${" not in json.dumps(document)
    assert document["channels"]["matrix"] == {"enabled": False, "encryption": False}
    assert document["models"]["providers"] == {}
    assert "model" not in document["agents"]["defaults"]
    assert document["env"]["vars"] == {}
    assert document["gateway"]["controlUi"] == {"enabled": False}
    assert document["gateway"]["trustedProxies"] == []
    features = [event["feature"] for event in events(capfd.readouterr().err)]
    assert features == ["matrix", "openrouter", "model", "control_ui"]


def test_the_real_template_with_every_value_is_the_template_with_its_leaves_replaced(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With all values given nothing is removed, changed or warned of."""
    contract = parse(contract_document())
    given = {name: f"<{name}>" for name in contract.values}
    expected = json.dumps(template_document())
    for name, value in given.items():
        expected = expected.replace("${" + name + "}", value)

    assert json.loads(expected) == filled(template_document(), contract, **given)
    assert capfd.readouterr().err == ""
