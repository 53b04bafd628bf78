#!/usr/bin/env python3
"""One turn with a tenant's OpenClaw, over its OpenAI-compatible endpoint. Standard library only.

    chat.py http://127.0.0.1:PORT TOKEN_FILE "please remember blue"

Prints the answer. Exit code 1 when the gateway refuses (a wrong token is 401) or does not answer.
"""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def chat(endpoint: str, token: str, text: str, *, user: str = "owner", timeout: float = 120) -> str:
    """The assistant's answer; `user` names the conversation, so that a later turn continues it.

    Raises:
        urllib.error.URLError: The gateway refused (`HTTPError`) or did not answer in `timeout` seconds.
    """
    body = {"model": "openclaw/default", "user": user, "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(
        f"{endpoint}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy reaches this host's loopback
    with direct.open(request, timeout=timeout) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def reason(error: urllib.error.HTTPError) -> str:
    """What the gateway says of it: 401 is a wrong token, but also a model that is not configured."""
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


def main() -> int:
    """Command line."""
    if len(sys.argv) != 4:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    endpoint, token_file, text = sys.argv[1:]
    try:
        print(chat(endpoint, Path(token_file).read_text().strip(), text))
    except urllib.error.HTTPError as error:
        print(f"chat: the gateway answered {error.code}: {reason(error)}", file=sys.stderr)
        return 1
    except urllib.error.URLError as error:
        print(f"chat: no answer from {endpoint}: {error.reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
