"""Wait until a gateway is ready by its contract's policy, and say how long it took.

Read from standard input by the interpreter inside the container: `python3 -I - POLICY SECONDS < ready.py`. POLICY is
JSON: the port, the contract's `probes`, and in `bearer_file` where the token of the ready path is. Ready is a 200 of
the ready path, or an answer whose `failing` list holds only what the policy ignores: a channel that nobody has linked
yet must not keep a tenant waiting.
"""

import json
import sys
import time
import urllib.error
import urllib.request

PAUSE = 0.1  # seconds between two questions


def ask(url: str, bearer: str = "") -> tuple[int, str]:
    """Status and body; status 0 and the reason when nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


def token(path: str) -> str:
    """The text of a token's file; empty when there is none, or none yet."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def is_ready(status: int, body: str, ignored: list[str]) -> bool:
    """Whether this answer of the ready path counts as ready."""
    if status == 200:
        return True
    try:
        failing = json.loads(body)["failing"]
    except (ValueError, KeyError, TypeError):
        return False
    return status == 503 and isinstance(failing, list) and bool(failing) and set(failing) <= set(ignored)


def main(policy: dict, seconds: float) -> int:
    """0 once ready, 1 when the time is over; prints the last answers either way."""
    base = f"http://127.0.0.1:{policy['port']}"
    started = time.monotonic()
    while True:
        status, body = ask(base + policy["ready"]["path"], token(policy.get("bearer_file", "")))
        ready = is_ready(status, body, policy["ready"].get("ignore_failing", []))
        waited = time.monotonic() - started
        if ready or waited > seconds:
            break
        time.sleep(PAUSE)
    print(f"{policy['live']['path']}: {ask(base + policy['live']['path'])}")
    print(f"{policy['ready']['path']}: {(status, body)}")
    print(f"{'ready' if ready else 'NOT ready'} after {waited:.1f} s of waiting")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), float(sys.argv[2])))
