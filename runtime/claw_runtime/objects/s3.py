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
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import IO, Any, Final
from urllib.parse import urlencode

import boto3
from botocore import exceptions as botocore
from botocore.config import Config
from urllib3 import exceptions as urllib3

from claw_runtime.errors import BucketMissing, ClawError, StoreDenied, StoreUnavailable
from claw_runtime.fsutil import read_exactly
from claw_runtime.logs import Secret
from claw_runtime.objects.keys import checked_key, checked_prefix
from claw_runtime.objects.quirks import Quirks, quirks_of
from claw_runtime.ports import AmbiguousWrite, ObjectInfo, ObjectMissing, PreconditionFailed
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
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"})
_MTIME: Final = re.compile(r"[0-9]{1,11}(\.[0-9]{1,9})?")
_KEYS: Final = (botocore.NoCredentialsError, botocore.PartialCredentialsError, botocore.CredentialRetrievalError)


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
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        session = boto3.session.Session(
            aws_access_key_id=access_key and access_key.reveal(),
            aws_secret_access_key=secret_key and secret_key.reveal(),
            aws_session_token=session_token and session_token.reveal(),
            region_name=region or "us-east-1",
        )
        self.quirks = quirks = quirks_of(endpoint)
        with self._told():
            self._client = session.client("s3", endpoint_url=endpoint, config=_config(endpoint, quirks, attempts=4))
            self._once = session.client("s3", endpoint_url=endpoint, config=_config(endpoint, quirks, attempts=1))
        if endpoint:
            for client in (self._client, self._once):
                client.meta.events.register("before-call.s3", _stay)

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
        whoever wrote it noted that (rclone does, as `mtime`). Raises `ObjectMissing` and as every method."""
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

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(self.pages(prefix))

    def pages(self, prefix: str, size: int = 1000) -> Sequence[ObjectInfo]:
        """A listing in pages of `size`, which the probe makes small."""
        where = {"Bucket": self._bucket, "Prefix": self._prefix + checked_prefix(prefix)}
        found: list[ObjectInfo] = []
        with self._told():
            for page in self._client.get_paginator("list_objects_v2").paginate(
                **where, PaginationConfig={"PageSize": size}
            ):
                for item in page.get("Contents", ()):
                    key = str(item["Key"]).removeprefix(self._prefix)
                    at = item["LastModified"].timestamp()
                    found.append(ObjectInfo(key=key, size=int(item["Size"]), etag=str(item["ETag"]), modified=at))
        # SeaweedFS lists `a/b` before `a-b`: the promised order is made here.
        return sorted(found, key=lambda item: item.key)

    def refuses_damage(self, key: str) -> bool:
        """Whether the store refuses an upload whose bytes do not match its checksum, as after a network error."""
        digest = base64.b64encode(hashlib.sha256(b"meant").digest()).decode()
        try:
            self._once.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=b"damaged", ChecksumSHA256=digest)
        except botocore.ClientError as error:
            return _status(error) == 400
        except botocore.BotoCoreError:
            return False
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
            raise self._refused(error, key, writing=writing, conditional=conditional) from error
        except botocore.ParamValidationError as error:
            raise self._no_bucket(str(error)[:300]) from error
        except _KEYS as error:
            raise self._denied(str(error)) from error
        except _NEVER_SENT as error:
            raise self._unreachable(error) from error
        # botocore lets urllib3's own pass when an answer breaks off that is not the body of an object.
        except (botocore.HTTPClientError, urllib3.HTTPError) as error:
            if writing:
                raise AmbiguousWrite(f"{key}: {error}") from error
            raise self._unreachable(error) from error
        except botocore.BotoCoreError as error:
            raise self._unreachable(error) from error

    def _refused(
        self, error: botocore.ClientError, key: str, *, writing: bool, conditional: bool
    ) -> ClawError | ObjectMissing | PreconditionFailed | AmbiguousWrite:
        code, status = _code(error), _status(error)
        if code in {"NoSuchBucket", "InvalidBucketName"}:
            return self._no_bucket(f"{self.url} answered {code}")
        if status == 412 or (status == 404 and conditional):
            return PreconditionFailed(key)
        if code in _FULL or status == 507:
            return self._refuses(error, "free space in the bucket, or raise its quota")
        if status in {401, 403} or code in _EXPIRED:
            return self._denied(f"it answered {code}", code=code)
        if writing and (status >= 500 or status == 408 or code == "NoSuchUpload"):
            return AmbiguousWrite(f"{key}: {status} {code}")
        if status == 404 and key:
            return ObjectMissing(key)
        if status in {408, 429}:
            return self._refuses(error, "it is throttling requests: retry later")
        if status < 500:
            return self._refuses(error, "check the bucket's region and the endpoint")
        return self._unreachable(error)

    def _refuses(self, error: Exception, hint: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"the object store {self.url} does not accept a request", why=str(error)[:300], hint=hint, url=self.url
        )

    def _no_bucket(self, why: str) -> BucketMissing:
        return BucketMissing(
            f"there is no bucket {self._bucket!r}",
            why=why,
            hint="create the bucket, or name another one",
            url=self.url,
        )

    def _denied(self, why: str, *, code: str = "") -> StoreDenied:
        hint = "check access key, secret key and their rights on the bucket"
        if code == "RequestTimeTooSkewed":
            hint = "correct this machine's clock"
        elif code in _EXPIRED:
            hint = "the session keys have expired: renew them"
        return StoreDenied(f"the object store {self.url} refused the access key", why=why, hint=hint, url=self.url)

    def _unreachable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"the object store {self.url} does not answer",
            why=str(error)[:300],
            hint="check that it is running, its address, and the network to it",
            url=self.url,
        )


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
    )


def _code(error: botocore.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: botocore.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
