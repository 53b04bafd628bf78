"""The page that a browser shows while its tenant starts: it loads itself again, without a script."""

import base64
import hashlib
import html
from typing import Final

from claw_runtime.router.heads import Request
from claw_runtime.router.ways import Refusal

STYLE: Final = """\
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { display: grid; min-height: 90vh; margin: 0 1rem; place-content: center; text-align: center; }
h1 { margin: 0; font-size: 1.5rem; font-weight: 600; }
"""
_DIGEST: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest())
POLICY: Final = (
    b"default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" % _DIGEST
)

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="{seconds}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
</body>
</html>
"""


def is_opened_by_a_person(request: Request) -> bool:
    """Whether a browser opens this address in a tab; programs never get a page."""
    return (
        request.method == b"GET"
        and request.field(b"sec-fetch-mode") == b"navigate"
        and b"text/html" in (request.field(b"accept") or b"")
    )


def page(tenant: str, why: str, again: int) -> Refusal:
    """The page for a tenant that starts, or that failed to (`why`); it is loaded again after so many seconds."""
    title = f"{tenant} is starting" if not why else f"{tenant} does not start"
    text = "This page opens it as soon as it is ready." if not why else f"{why}. The next attempt is on its way."
    made = _PAGE.format(style=STYLE, seconds=again, title=html.escape(title), text=html.escape(text))
    fields = (
        (b"content-type", b"text/html; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"retry-after", b"%d" % again),
    )
    return Refusal(b"503 Service Unavailable", fields, made.encode())
