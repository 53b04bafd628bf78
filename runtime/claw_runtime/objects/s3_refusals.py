"""The errors of an S3 store: each kind of answer means one thing to do."""

from dataclasses import dataclass
from typing import Final

from claw_runtime.errors import BucketMissing, ClawError, StoreDenied, StoreUnavailable
from claw_runtime.ports import AmbiguousWrite, ObjectMissing, PreconditionFailed

_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"})
_THROTTLING: Final = frozenset({"SlowDown", "RequestLimitExceeded", "TooManyRequests", "ThrottlingException"})
_CHECKSUM_HEADERS: Final = ("x-amz-sdk-checksum", "x-amz-checksum", "x-amz-trailer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An error that the service answered.

    Attributes:
        status, code: Of HTTP, and of S3.
        text: Both as a text.
        region: The bucket's region, if the service named it.
    """

    status: int
    code: str
    text: str
    region: str = ""


class Refusals:
    """Makes the errors of one store.

    Args:
        url: The store, without keys; every message names it.
    """

    def __init__(self, url: str, bucket: str) -> None:
        self._url = url
        self._bucket = bucket

    def of(
        self, answer: Answer, key: str, *, writing: bool, conditional: bool
    ) -> ClawError | ObjectMissing | PreconditionFailed | AmbiguousWrite:
        """The error for an answer to a request about `key`, which may be empty."""
        code, status = answer.code, answer.status
        if code in {"NoSuchBucket", "InvalidBucketName"}:
            return self.no_bucket(f"{self._url} answered {code}")
        if status == 412 or (status == 404 and conditional):
            return PreconditionFailed(key)
        if code in _FULL or status == 507:
            return self._refuses(answer, "free space in the bucket, or raise its quota")
        if status in {401, 403} or code in _EXPIRED:
            return self.denied(f"it answered {code}", code=code)
        if writing and (status >= 500 or status == 408 or code == "NoSuchUpload"):
            return AmbiguousWrite(f"{key}: {status} {code}")
        if status == 404 and key:
            return ObjectMissing(key)
        if status in {408, 429} or code in _THROTTLING:
            return self._refuses(answer, "it is throttling requests: retry later")
        if any(name in answer.text.lower() for name in _CHECKSUM_HEADERS):
            return self._refuses(answer, "the service refuses checksums of uploads in every form: use another store")
        if status < 500:
            if answer.region:
                return self._refuses(
                    answer,
                    f"the bucket is in region {answer.region}: set CLAW_S3_REGION, and the endpoint of that region",
                )
            return self._refuses(answer, "check the bucket's region and the endpoint")
        return self.unreachable(answer.text)

    def _refuses(self, answer: Answer, hint: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"the object store {self._url} does not accept a request", why=answer.text, hint=hint, url=self._url
        )

    def no_bucket(self, why: str) -> BucketMissing:
        return BucketMissing(
            f"there is no bucket {self._bucket!r}",
            why=why,
            hint="create the bucket, or name another one",
            url=self._url,
        )

    def denied(self, why: str, *, code: str = "") -> StoreDenied:
        hint = "check access key, secret key and their rights on the bucket"
        if code == "RequestTimeTooSkewed":
            hint = "correct this machine's clock"
        elif code in _EXPIRED:
            hint = "the session keys have expired: renew them"
        return StoreDenied(f"the object store {self._url} refused the access key", why=why, hint=hint, url=self._url)

    def misconfigured(self, why: str) -> StoreDenied:
        """The error for an AWS configuration that boto3 cannot use; settings of claw would win over it."""
        return StoreDenied(
            f"the object store {self._url} cannot be opened with this user's AWS configuration",
            why=why,
            hint="set CLAW_S3_ACCESS_KEY and CLAW_S3_SECRET_KEY, unset AWS_PROFILE, or correct ~/.aws/config and AWS_…",
            url=self._url,
        )

    def unreachable(self, error: object) -> StoreUnavailable:
        return StoreUnavailable(
            f"the object store {self._url} does not answer",
            why=str(error)[:300],
            hint="check that it is running, its address, and the network to it",
            url=self._url,
        )
