"""S3 through boto3; the only module that imports it.

boto3's CRT transfer manager ignores a custom endpoint and would send tenant data to the public service (boto3 issue
4839): plain PutObject and GetObject are used here, and nothing of boto3's transfer managers. A conditional write is
never retried by botocore: its second attempt can be refused because of its own first, so the caller must find out.
"""

import base64
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import IO, Any, Final
from urllib.parse import urlencode

import boto3
from botocore import exceptions as botocore
from botocore.config import Config
from botocore.session import Session as CoreSession
from urllib3 import exceptions as urllib3

from claw_runtime.errors import StoreUnavailable
from claw_runtime.fsutil import read_exactly
from claw_runtime.logs import Secret
from claw_runtime.objects import s3_refusals as refusals
from claw_runtime.objects.keys import checked_key, checked_prefix
from claw_runtime.objects.quirks import Quirks, is_loopback, quirks_of
from claw_runtime.ports import AmbiguousWrite, ObjectInfo
from claw_runtime.tenancy import TENANTS

_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 60
_CONFLICTS: Final = 3
_READS: Final = 3
_NEVER_SENT: Final = (
    botocore.ConnectTimeoutError,
    botocore.EndpointConnectionError,
    botocore.ProxyConnectionError,
    botocore.SSLError,
)
_BROKEN_BODIES: Final = (
    botocore.HTTPClientError,
    botocore.IncompleteReadError,
    botocore.FlexibleChecksumError,
    urllib3.HTTPError,
)
_SLOWEST: Final = 64 * 1024  # bytes per second: a slower body is aborted
_PART: Final = 16 * 1024 * 1024
_PIECE: Final = 1024 * 1024
_MOST_PARTS: Final = 10_000
_SENDERS: Final = 4  # each holds one part in memory
_FETCHERS: Final = 6  # each holds one piece
_LARGE: Final = (TENANTS, ".claw-probe/")  # what keys of `send` begin with
_ANY: Final = (botocore.ClientError, botocore.BotoCoreError)
_BUSY: Final = frozenset({404, 408, 429, 500, 502, 503, 504, 507})
_MTIME: Final = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")
_KEYS: Final = (botocore.NoCredentialsError, botocore.PartialCredentialsError, botocore.CredentialRetrievalError)
_CONFIGURATION: Final = (
    botocore.ProfileNotFound,
    botocore.ConfigParseError,
    botocore.InvalidConfigError,
    botocore.InvalidDefaultsMode,
    botocore.InvalidS3UsEast1RegionalEndpointConfigError,
    botocore.InvalidSTSRegionalEndpointsConfigError,
)


class S3Store:
    """An `ObjectStore` in a bucket, below a prefix. Etags are opaque; safe to use from several threads."""

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        endpoint: str | None = None,
        region: str | None = None,
        access_key: Secret | None = None,
        secret_key: Secret | None = None,
        session_token: Secret | None = None,
    ) -> None:
        options = {"endpoint": endpoint, "region": region}
        query = urlencode({name: value for name, value in options.items() if value}, safe=":/")
        self.url = f"s3://{bucket}{'/' if prefix else ''}{prefix}{'?' if query else ''}{query}"
        self._refusals = refusals.Refusals(self.url, bucket)
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        with self._told():
            self._session = _session(
                region or "us-east-1",
                aws_access_key_id=access_key.reveal() if access_key else None,
                aws_secret_access_key=secret_key.reveal() if secret_key else None,
                aws_session_token=session_token.reveal() if session_token else None,
            )
        self._endpoint = endpoint
        self._connect(quirks_of(endpoint))

    def _connect(self, quirks: Quirks) -> None:
        """Make the clients, which speak to the service by these quirks."""
        endpoint = self._endpoint
        with self._told():
            made = [
                self._session.client("s3", endpoint_url=endpoint, config=_config(endpoint, quirks, attempts=attempts))
                for attempts in (4, 1)
            ]
        if endpoint:
            for client in made:
                client.meta.events.register("before-call.s3", _stay)
        self._client, self._once = made
        self.quirks = quirks

    def learn(self, key: str) -> None:
        """Find out with an object of this name whether the service accepts the checksum that boto3 adds to uploads.

        Some services refuse its header or its form over https; others store the framing of that form as content. If an
        upload works without it only, none is added from now on. Other faults are left to the caller's next request.
        """
        if not self.quirks.checksums or self._keeps(key) is not False:
            return
        before = self.quirks
        self._connect(replace(before, checksums=False))
        if not self._keeps(key):
            self._connect(before)

    def _keeps(self, key: str) -> bool | None:
        """Whether an upload comes back as it was sent; None when the answer says nothing about its form."""
        body = b"sample"
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}
        try:
            self._client.put_object(**where, Body=body)
            checked = {"ChecksumMode": "ENABLED"} if self.quirks.checksums else {}
            with closing(self._client.get_object(**where, **checked)["Body"]) as stored:
                return bool(stored.read() == body)
        except botocore.FlexibleChecksumError:
            return False
        except botocore.ClientError as error:
            return None if _status(error) in _BUSY else False
        except (botocore.BotoCoreError, urllib3.HTTPError):
            return None

    def create_bucket(self) -> None:
        """Create the bucket; no error if this account owns it already. Raises `StoreUnavailable`, `StoreDenied`."""
        with self._told():
            try:
                self._client.create_bucket(Bucket=self._bucket)
            except botocore.ClientError as error:
                if _code(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def get(self, key: str) -> tuple[bytes, str]:
        checked = {"ChecksumMode": "ENABLED"} if self.quirks.checksums else {}
        body, answer = self._read(key, **checked)
        return body, str(answer.get("ETag", ""))

    def foreign(self, key: str) -> tuple[Iterator[bytes], int | None]:
        """An object whose name is none of ours, in pieces, and when (in ns) its file was last changed, where
        the program that wrote it noted that (rclone does, as `mtime`). Raises `ObjectMissing` and as every method."""
        with self._told(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        noted = answer.get("Metadata", {}).get("mtime", "")

        def pieces() -> Iterator[bytes]:
            with self._told(key), closing(answer["Body"]) as body:
                yield from body.iter_chunks(1 << 20)

        return pieces(), int(Decimal(noted) * 10**9) if _MTIME.fullmatch(noted) else None

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        # The checksum of a whole object says nothing about a part of it, though some servers send it along.
        return self._read(key, Range=f"bytes={offset}-{offset + length - 1}")[0] if length else b""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key), "Body": data}
        if if_absent:
            arguments["IfNoneMatch"] = "*"
        if if_match is not None:
            arguments["IfMatch"] = self._named(if_match)
        conditional = if_absent or if_match is not None
        client = self._once if conditional else self._client
        for attempt in range(1, _CONFLICTS + 1):
            with self._told(key, writing=True, conditional=conditional):
                try:
                    return str(client.put_object(**arguments).get("ETag", ""))
                except botocore.ClientError as error:
                    # 409: another write of this key is in progress; this one was not done.
                    if _status(error) != 409 or attempt == _CONFLICTS:
                        raise
            time.sleep(0.05 * attempt)
        raise AssertionError("unreachable")

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}
        if if_match is None:
            with self._told():
                self._client.delete_object(**where)
            return
        if not self.quirks.conditional_delete:
            raise StoreUnavailable(
                f"the object store {self.url} cannot delete an object on a condition",
                why="it is known to ignore If-Match on DELETE, and would remove any object there",
                hint="use a store that supports it",
                url=self.url,
            )
        with self._told(key, writing=True, conditional=True):
            self._once.delete_object(**where, IfMatch=self._named(if_match))

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        """Upload in parts: a failed part is sent again; an upload that cannot be finished is aborted."""
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}
        with self._told(key):
            upload = self._client.create_multipart_upload(**where)["UploadId"]
        try:
            sent = self._send_parts({**where, "UploadId": upload}, key, source, size)
            with self._told(key, writing=True):
                self._client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": sent})
        except BaseException:
            with suppress(*_ANY):
                self._client.abort_multipart_upload(**where, UploadId=upload)
            raise

    def _send_parts(self, where: dict[str, Any], key: str, source: IO[bytes], size: int) -> list[dict[str, Any]]:
        def send(number: int, body: bytes) -> dict[str, Any]:
            try:
                with self._told(key):
                    answer = self._client.upload_part(**where, PartNumber=number, Body=body)
            finally:
                room.release()
            sums = {name: value for name, value in answer.items() if name.startswith("Checksum") and name.isalnum()}
            sums.pop("ChecksumType", None)
            return {"PartNumber": number, "ETag": answer["ETag"], **sums}

        part = max(_PART, -(-size // _MOST_PARTS))
        room = threading.BoundedSemaphore(_SENDERS + 1)
        with ThreadPoolExecutor(_SENDERS, thread_name_prefix="claw-send") as pool:
            futures: list[Future[dict[str, Any]]] = []
            try:
                for number, offset in enumerate(range(0, max(size, 1), part), 1):
                    room.acquire()
                    if any(future.done() and future.exception() for future in futures):
                        break
                    body = read_exactly(source, min(part, size - offset), last=offset + part >= size)
                    futures.append(pool.submit(send, number, body))
                return [future.result() for future in futures]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def fetch(self, key: str, size: int, sink: Callable[[int, memoryview], None]) -> None:
        where = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}

        def fetch(at: int) -> None:
            self._stream(where, key, at, min(at + _PART, size), sink)

        with ThreadPoolExecutor(_FETCHERS, thread_name_prefix="claw-fetch") as pool:
            try:
                for future in [pool.submit(fetch, at) for at in range(0, size, _PART)]:
                    future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _stream(
        self, where: dict[str, Any], key: str, at: int, end: int, sink: Callable[[int, memoryview], None]
    ) -> None:
        """One range, in small pieces. A body that breaks off is continued at that offset."""
        for attempt in range(1, _READS + 1):
            with self._told(key):
                answer = self._client.get_object(**where, Range=f"bytes={at}-{end - 1}")
                with suppress(*_BROKEN_BODIES if attempt < _READS else ()), _watched(answer) as body:
                    if (came := int(answer["ContentLength"])) != end - at:
                        raise botocore.IncompleteReadError(actual_bytes=came, expected_bytes=end - at)
                    while at < end:
                        piece = body.read(min(_PIECE, end - at))
                        sink(at, memoryview(piece))
                        at += len(piece)
                    return

    def remove_unfinished(self, age: float) -> int:
        """Abort uploads in parts of our keys that got no part for so long. A store that cannot list them keeps them."""
        where, removed = {"Bucket": self._bucket}, 0
        with self._told():
            try:
                pages = self._client.get_paginator("list_multipart_uploads").paginate(**where, Prefix=self._prefix)
                for page in pages:
                    now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
                    for upload in page.get("Uploads", ()):
                        one = {**where, "Key": str(upload["Key"]), "UploadId": upload["UploadId"]}
                        if not one["Key"].removeprefix(self._prefix).startswith(_LARGE):
                            continue
                        if now - upload["Initiated"].timestamp() >= age and now - self._continued(one) >= age:
                            self._client.abort_multipart_upload(**one)
                            removed += 1
            except botocore.ClientError as error:
                if _status(error) not in {404, 405, 501}:
                    raise
        return removed

    def _continued(self, upload: dict[str, Any]) -> float:
        """When an upload got its last part; 0 when it has none."""
        pages = self._client.get_paginator("list_parts").paginate(**upload)
        return max((part["LastModified"].timestamp() for page in pages for part in page.get("Parts", ())), default=0.0)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return iter(self.pages(prefix, after=after))

    def pages(self, prefix: str, size: int = 1000, *, after: str = "") -> Sequence[ObjectInfo]:
        """A listing in pages of `size`, which the probe makes small."""
        where = {"Bucket": self._bucket, "Prefix": self._prefix + checked_prefix(prefix)}
        if after:
            where["StartAfter"] = self._prefix + after
        found: list[ObjectInfo] = []
        with self._told():
            for page in self._client.get_paginator("list_objects_v2").paginate(
                **where, PaginationConfig={"PageSize": size}
            ):
                for item in page.get("Contents", ()):
                    key = str(item["Key"]).removeprefix(self._prefix)
                    at = item["LastModified"].timestamp()
                    found.append(ObjectInfo(key=key, size=int(item["Size"]), etag=str(item["ETag"]), modified=at))
        # SeaweedFS lists `a/b` before `a-b`: the promised order is made here. A service may not know StartAfter.
        return sorted((item for item in found if item.key > after), key=lambda item: item.key)

    def refuses_damage(self, key: str) -> bool:
        """Whether the store refuses an upload whose bytes do not match its checksum, as after a network error."""
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}
        where["ChecksumSHA256"] = base64.b64encode(hashlib.sha256(b"meant").digest()).decode()
        try:
            self._once.put_object(**where, Body=b"damaged")
        except botocore.ClientError as error:
            if _status(error) != 400:
                return False
        except botocore.BotoCoreError:
            return False
        else:
            return False
        with suppress(*_ANY):  # a service that refuses every checksum has not looked at this one
            self._once.put_object(**where, Body=b"meant")
            return True
        return False

    def _named(self, etag: str) -> str:
        return etag if self.quirks.quoted_etags else etag.strip('"')

    def _read(self, key: str, **arguments: Any) -> tuple[bytes, dict[str, Any]]:
        """A body, whole; botocore retries the request but not a body that breaks off."""
        where = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}
        for attempt in range(1, _READS + 1):
            with self._told(key):
                answer = self._client.get_object(**where, **arguments)
                try:
                    with _watched(answer) as body:
                        return bytes(body.read()), answer
                except _BROKEN_BODIES:
                    if attempt == _READS:
                        raise
        raise AssertionError("unreachable")

    @contextmanager
    def _told(self, key: str = "", *, writing: bool = False, conditional: bool = False) -> Iterator[None]:
        """Translate S3 errors into the classes of errors.py."""
        try:
            yield
        except botocore.ClientError as error:
            answer = refusals.Answer(
                status=_status(error), code=_code(error), text=str(error)[:300], region=_region(error)
            )
            raise self._refusals.of(answer, key, writing=writing, conditional=conditional) from error
        except botocore.ParamValidationError as error:
            raise self._refusals.no_bucket(str(error)[:300]) from error
        except _KEYS as error:
            raise self._refusals.denied(str(error)) from error
        except _CONFIGURATION as error:
            raise self._refusals.misconfigured(str(error)[:300]) from error
        except _NEVER_SENT as error:
            raise self._refusals.unreachable(error) from error
        # botocore lets urllib3's own pass when an answer breaks off that is not the body of an object.
        except (botocore.HTTPClientError, urllib3.HTTPError) as error:
            if writing:
                raise AmbiguousWrite(f"{key}: {error}") from error
            raise self._refusals.unreachable(error) from error
        except botocore.BotoCoreError as error:
            raise self._refusals.unreachable(error) from error


@contextmanager
def _watched(answer: dict[str, Any]) -> Iterator[Any]:
    """An answer's body. A very slow one is aborted, which a timeout between two bytes cannot do."""
    body = answer["Body"]

    def cut() -> None:
        with suppress(AttributeError, RuntimeError, ValueError, OSError):  # it has just ended
            body._raw_stream.shutdown()  # noqa: SLF001 - what urllib3 offers for this, and botocore hides

    watch = threading.Timer(_READ_SECONDS + int(answer.get("ContentLength", 0)) / _SLOWEST, cut)
    watch.daemon = True
    watch.start()
    try:
        yield body
    finally:
        watch.cancel()
        body.close()


def _stay(context: dict[str, Any], **_rest: Any) -> None:
    """An endpoint that was given is not left for another: botocore would ask it for the bucket's region, and, where
    that is answered by a redirection too, ask again without end."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _session(region: str, **keys: str | None) -> boto3.session.Session:
    """A session with these keys, or with those of boto3's usual sources when there are none.

    Raises:
        ProfileNotFound: AWS_PROFILE names no profile of this user, and no keys are given.
    """
    try:
        return boto3.session.Session(region_name=region, **keys)
    except botocore.ProfileNotFound:
        if keys["aws_access_key_id"] is None:
            raise
    without = CoreSession(session_vars={"profile": (None, None, None, None)})
    return boto3.session.Session(botocore_session=without, region_name=region, **keys)


def _config(endpoint: str | None, quirks: Quirks, *, attempts: int) -> Config:
    return Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        max_pool_connections=16,
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_supported" if quirks.checksums else "when_required",
        response_checksum_validation="when_required",  # `get` asks for it itself
        # An operator's shell or instance must not redirect tenant data: only these settings are used.
        ignore_configured_endpoint_urls=True,
        use_fips_endpoint=False if endpoint else None,
        use_dualstack_endpoint=False if endpoint else None,
        proxies={} if is_loopback(endpoint) else None,
    )


def _code(error: botocore.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _region(error: botocore.ClientError) -> str:
    """The bucket's region as an answer gives it, in its body or a header; empty if it does not."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found = str(error.response.get("Error", {}).get("Region", "") or headers.get("x-amz-bucket-region", ""))
    return found if re.fullmatch(r"[a-z0-9-]{1,40}", found) else ""


def _status(error: botocore.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
