"""Opens the driver for a store's URL."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from claw_runtime.errors import InvalidSpec
from claw_runtime.logs import Secret
from claw_runtime.objects.keys import ALLOWED, checked_key
from claw_runtime.ports import ObjectStore

_OPTIONS: Final = frozenset({"endpoint", "region"})


def open_store(
    url: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    access_key: Secret | str | None = None,
    secret_key: Secret | str | None = None,
    session_token: Secret | str | None = None,
) -> ObjectStore:
    """Open the store that a URL names. Nothing is sent yet; a directory must exist.

    Args:
        url: `s3://bucket[/prefix][?endpoint=http://host:port&region=name]`, `file:///absolute/path` or `memory:`.
        endpoint, region: For an S3 URL that names none.
        access_key, secret_key, session_token: S3 keys, never part of the URL; without them boto3 uses its usual
            sources.

    Raises:
        InvalidSpec: The URL does not have one of these forms.
        BucketMissing, StoreDenied: A `file:` directory is missing, or this user may not write to it.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or "@" in parts.netloc:
        raise _invalid(f"{parts.scheme}://…", "keys are never part of the URL", "set them in their own settings")
    match parts.scheme:
        case "memory" if url in {"memory:", "memory://"}:
            from claw_runtime.objects.memory import MemoryStore

            return MemoryStore()
        case "file":
            from claw_runtime.objects.directory import DirectoryStore

            path = Path(unquote(parts.path))
            if parts.netloc or parts.query or not path.is_absolute() or ".." in path.parts:
                raise _invalid(url, "a file URL is file:// and an absolute path", "write file:///srv/claw")
            return DirectoryStore(path)
        case "s3":
            return _open_s3(url, {"endpoint": endpoint, "region": region}, (access_key, secret_key, session_token))
        case _:
            raise _invalid(url, "the scheme is not s3, file or memory", "write s3://bucket or file:///srv/claw")


def _open_s3(url: str, defaults: Mapping[str, str | None], keys: Sequence[Secret | str | None]) -> ObjectStore:
    from claw_runtime.objects.s3 import S3Store

    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    try:
        options = parse_qs(parts.query, keep_blank_values=False, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise _invalid(url, str(error), "write s3://bucket/prefix?endpoint=http://127.0.0.1:8333") from error
    try:
        if prefix:
            checked_key(prefix)
    except ValueError as error:
        raise _invalid(url, f"its prefix {prefix[:80]!r} cannot be used", f"use {ALLOWED}") from error
    if unknown := sorted(set(options) - _OPTIONS):
        raise _invalid(url, f"unknown option {unknown[0]!r}", "options are endpoint and region")
    if not parts.netloc or any(len(values) > 1 for values in options.values()):
        raise _invalid(url, "give one bucket, and each option once", "write s3://bucket?region=eu-central-1")
    endpoint = options.get("endpoint", [defaults["endpoint"]])[0]
    if endpoint and (urlsplit(endpoint).scheme not in {"http", "https"} or not urlsplit(endpoint).hostname):
        raise _invalid(url, f"the endpoint {endpoint!r} is not an http URL", "write endpoint=http://127.0.0.1:8333")
    access_key, secret_key, session_token = (Secret(key) if isinstance(key, str) else key for key in keys)
    return S3Store(
        bucket=parts.netloc,
        prefix=prefix,
        endpoint=endpoint,
        region=options.get("region", [defaults["region"]])[0],
        access_key=access_key,
        secret_key=secret_key,
        session_token=session_token,
    )


def _invalid(url: str, why: str, hint: str) -> InvalidSpec:
    return InvalidSpec(f"not a store URL: {url[:200]}", why=why, hint=hint)
