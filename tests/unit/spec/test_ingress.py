"""`ingress:` names plain paths alone, since what it names is open to everybody."""

from pathlib import Path

import pytest
from claw_runtime.errors import InvalidSpec
from claw_runtime.spec import loader, plan
from claw_runtime.spec.parts import Webhook
from claw_runtime.spec.shown import shown

FILE = """id: a
image: localhost/a:dev
ports: [{container: 80}]
healthcheck: {path: /ready}
volumes: {state: {target: /state}}
"""


def planned(text: str) -> plan.Workload:
    return plan.make(loader.parse(f"{FILE}{text}", Path("a.yaml")))


def test_a_webhook_has_narrow_defaults() -> None:
    """A path alone is for POST, a mebibyte and a request a second."""
    [found] = planned("ingress: {webhooks: [{path: /slack/events}]}").webhooks
    assert found == Webhook(path="/slack/events", methods=("POST",), body=1 << 20, rate=60)


def test_nothing_is_open_by_default() -> None:
    """Without `ingress:` every request needs a credential."""
    assert planned("").webhooks == ()


def test_a_file_is_shown_with_its_webhooks() -> None:
    """What `config show` prints loads again and means the same."""
    document = loader.parse(f"{FILE}ingress: {{webhooks: [{{path: /x, body: 256k, rate: 9}}]}}", Path("a.yaml"))
    told = shown(document, plan.make(document))["ingress"]
    assert told == {"webhooks": [{"path": "/x", "methods": ["POST"], "body": "256k", "rate": 9}]}


@pytest.mark.parametrize(
    "path", ["/", "x", "/a/", "/a//b", "/a/../b", "/./a", "/a?b", "/a%2e", "/a b", "/a#b", "/a\\\\b", "/%2e%2e", ""]
)
def test_what_is_no_plain_path_is_refused(path: str) -> None:
    """The root would open everything, and what programs read in two ways could open what was not named."""
    with pytest.raises(InvalidSpec):
        planned(f'ingress: {{webhooks: [{{path: "{path}"}}]}}')


@pytest.mark.parametrize(
    "text", ["methods: [CONNECT]", "methods: []", "methods: [post]", "body: 1g", "rate: 0", "auth: none"]
)
def test_what_is_out_of_range_is_refused(text: str) -> None:
    """Methods are few, and no cap can be left out."""
    with pytest.raises(InvalidSpec):
        planned(f"ingress: {{webhooks: [{{path: /x, {text}}}]}}")


def test_paths_do_not_overlap() -> None:
    """Of two caps for one request, nobody could tell which counts."""
    with pytest.raises(InvalidSpec, match="overlaps with '/a'"):
        planned("ingress: {webhooks: [{path: /a}, {path: /a/b}]}")


def test_webhooks_need_a_port() -> None:
    """A path that leads nowhere is a mistake that a service at the other end would find."""
    text = FILE.replace("ports: [{container: 80}]\n", "").replace("{path: /ready}", '{test: [CMD, "true"]}')
    with pytest.raises(InvalidSpec, match="without a port"):
        plan.make(loader.parse(f"{text}ingress: {{webhooks: [{{path: /x}}]}}", Path("a.yaml")))
