"""The page that a browser shows while its tenant starts."""

import base64
import hashlib
import re

from claw_runtime.router.waiting import page


def test_the_page_may_use_its_own_style_and_nothing_else() -> None:
    """Its policy names the digest of the one style that it has."""
    made = page("alice", "", 2)
    [style] = re.findall(rb"<style>(.*?)</style>", made.content, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style).digest())

    policy = dict(made.fields)[b"content-security-policy"]

    assert policy.startswith(b"default-src 'none'; style-src 'sha256-" + digest + b"';")
    assert b"unsafe" not in policy


def test_a_reason_is_text() -> None:
    """What a reason contains is shown, and is no markup."""
    made = page("alice", "<b>full</b>", 2)

    assert b"&lt;b&gt;full&lt;/b&gt;" in made.content
    assert b"<b>" not in made.content
