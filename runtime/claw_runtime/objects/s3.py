"""S3 through boto3; the only module that imports it.

boto3's CRT transfer manager ignores a custom endpoint and would send tenant data to the public service (boto3 issue
4839): plain PutObject and GetObject are used here, and nothing of boto3's transfer managers. A conditional write is
never retried by botocore: its second attempt can be refused because of its own first, so the caller must find out.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import IO, Any, Final
from urllib.parse import urlencode

import boto3
from botocore import exceptions as botocore
from botocore.config import Config

from claw_runtime.errors import BucketMissing, ClawError, StoreDenied, StoreUnavailable
from claw_runtime.fsutil import read_exactly
from claw_runtime.logs import Secret
from claw_runtime.objects.keys import checked_key, checked_prefix
from claw_runtime.ports import AmbiguousWrite, ObjectInfo, ObjectMissing, PreconditionFailed

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
_PART: Final = 16 * 1024 * 1024
_PIECE: Final = 8 * 1024 * 1024
_MOST_PARTS: Final = 10_000
_LANES: Final = 8
_ANY: Final = (botocore.ClientError, botocore.BotoCoreError)
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
        with self._told():
            self._client = session.client("s3", endpoint_url=endpoint, config=_config(endpoint, attempts=4))
            self._once = session.client("s3", endpoint_url=endpoint, config=_config(endpoint, attempts=1))

    def create_bucket(self) -> None:
        """Create the bucket; one that is ours already is fine. Raises `StoreUnavailable`, `StoreDenied`."""
        with self._told():
            try:
                self._client.create_bucket(Bucket=self._bucket)
            except botocore.ClientError as error:
                if _code(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def get(self, key: str) -> tuple[bytes, str]:
        body, answer = self._read(key)
        return body, str(answer["ETag"])

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self._read(key, Range=f"bytes={offset}-{offset + length - 1}")[0] if length else b""

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key), "Body": data}
        if if_absent:
            arguments["IfNoneMatch"] = "*"
        if if_match is not None:
            arguments["IfMatch"] = if_match
        conditional = if_absent or if_match is not None
        client = self._once if conditional else self._client
        for attempt in range(1, _CONFLICTS + 1):
            with self._told(key, writing=True, conditional=conditional):
                try:
                    return str(client.put_object(**arguments)["ETag"])
                except botocore.ClientError as error:
                    # 409: another write of this key is under way; ours was not done, whoever wins.
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
        with self._told(key, writing=True, conditional=True):
            self._once.delete_object(**where, IfMatch=if_match)

    def send(self, key: str, source: IO[bytes], size: int) -> None:
        """A part is sent again when it failed; an upload that cannot be finished is taken back."""
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
        room = threading.BoundedSemaphore(_LANES + 1)
        with ThreadPoolExecutor(_LANES, thread_name_prefix="claw-send") as pool:
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
        buffers: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(_LANES):
            buffers.put(bytearray(min(_PIECE, size)))

        def fetch(offset: int) -> None:
            buffer = buffers.get()
            try:
                piece = memoryview(buffer)[: min(_PIECE, size - offset)]
                self._read_into(piece, where, key, offset)
                sink(offset, piece)
            finally:
                buffers.put(buffer)

        with ThreadPoolExecutor(_LANES, thread_name_prefix="claw-fetch") as pool:
            try:
                for future in [pool.submit(fetch, offset) for offset in range(0, size, _PIECE)]:
                    future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _read_into(self, piece: memoryview, where: dict[str, Any], key: str, offset: int) -> None:
        """One range; botocore retries the request but not a body that breaks off."""
        for attempt in range(1, _READS + 1):
            with self._told(key):
                body = self._client.get_object(**where, Range=f"bytes={offset}-{offset + len(piece) - 1}")["Body"]
                try:
                    _fill(body, piece)
                except (botocore.HTTPClientError, botocore.IncompleteReadError):
                    if attempt == _READS:
                        raise
                else:
                    return
                finally:
                    body.close()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        whole = self._prefix + checked_prefix(prefix)
        found: list[ObjectInfo] = []
        with self._told():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=whole):
                for item in page.get("Contents", ()):
                    key = str(item["Key"]).removeprefix(self._prefix)
                    at = item["LastModified"].timestamp()
                    found.append(ObjectInfo(key=key, size=int(item["Size"]), etag=str(item["ETag"]), modified=at))
        # SeaweedFS lists `a/b` before `a-b`: the order that we promise is made here.
        return iter(sorted(found, key=lambda item: item.key))

    def _read(self, key: str, **arguments: Any) -> tuple[bytes, dict[str, Any]]:
        """A body, whole; botocore retries the request but not a body that breaks off."""
        where = {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}
        for attempt in range(1, _READS + 1):
            with self._told(key):
                answer = self._client.get_object(**where, **arguments)
                try:
                    return bytes(answer["Body"].read()), answer
                except (botocore.HTTPClientError, botocore.IncompleteReadError, botocore.FlexibleChecksumError):
                    if attempt == _READS:
                        raise
        raise AssertionError("unreachable")

    @contextmanager
    def _told(self, key: str = "", *, writing: bool = False, conditional: bool = False) -> Iterator[None]:
        """Say what S3 answered in our own classes."""
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
        except botocore.HTTPClientError as error:
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
        if status == 404 and key:
            return ObjectMissing(key)
        if status in {401, 403}:
            return self._denied(f"it answered {code}", code=code)
        if writing and (status >= 500 or status == 408):
            return AmbiguousWrite(f"{key}: {status} {code}")
        if status < 500:
            return StoreUnavailable(
                f"the object store {self.url} does not accept a request",
                why=str(error)[:300],
                hint="check the bucket's region and the endpoint",
                url=self.url,
            )
        return self._unreachable(error)

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
            hint = "set this machine's clock"
        return StoreDenied(f"the object store {self.url} refused our keys", why=why, hint=hint, url=self.url)

    def _unreachable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"the object store {self.url} does not answer",
            why=str(error)[:300],
            hint="check that it runs, its address, and the network between",
            url=self.url,
        )


def _fill(body: Any, piece: memoryview) -> None:
    """Raises `IncompleteReadError` when the body ends before the piece is full."""
    done = 0
    while done < len(piece):
        count = body.readinto(piece[done:])
        if not count:
            raise botocore.IncompleteReadError(actual_bytes=done, expected_bytes=len(piece))
        done += count


def _config(endpoint: str | None, *, attempts: int) -> Config:
    return Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        max_pool_connections=16,
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3={"addressing_style": "path" if endpoint else "auto"},
        # An operator's shell or instance must not redirect tenant data: only what is given here counts.
        ignore_configured_endpoint_urls=True,
    )


def _code(error: botocore.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: botocore.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
