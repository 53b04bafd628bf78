"""What S3 may answer, and what becomes of it; the server here is ten lines on loopback that answers as told."""

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from claw_runtime.errors import BucketMissing, StoreDenied, StoreUnavailable
from claw_runtime.logs import Secret
from claw_runtime.objects import s3
from claw_runtime.objects.quirks import Quirks
from claw_runtime.objects.s3 import S3Store
from claw_runtime.ports import AmbiguousWrite, ObjectMissing, PreconditionFailed

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def says(status: int, code: str = "") -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        body = f"<Error><Code>{code}</Code><Message>told so</Message></Error>".encode() if code else b""
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", '"e"')
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    return answer


def hangs_up(request: http.server.BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


def stalls(request: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)
    request.close_connection = True


def breaks_off(request: http.server.BaseHTTPRequestHandler) -> None:
    """Half of the body that was announced."""
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.send_header("ETag", '"e"')
    request.end_headers()
    request.wfile.write(b"x" * 50)
    request.wfile.flush()
    hangs_up(request)


def trickles(request: http.server.BaseHTTPRequestHandler) -> None:
    """A byte now and then, quicker than any timeout between two of them."""
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(100):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.1)


class Server:
    """Gives the answers that it was told, in turn, the last one for ever; `asked` are the methods since then."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.answers: tuple[Answer, ...] = ()
        told = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                told.asked.append(self.command)
                told.headers.append(dict(self.headers))
                told.answers[min(len(told.asked), len(told.answers)) - 1](self)

            do_GET = do_PUT = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_args: object) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        self.store = made(self.endpoint)

    def tell(self, *answers: Answer) -> S3Store:
        self.asked.clear()
        self.headers.clear()
        self.answers = answers
        return self.store

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def made(endpoint: str) -> S3Store:
    keys = {"access_key": Secret("access-key"), "secret_key": Secret("secret-key-x")}
    return S3Store(bucket="bucket", endpoint=endpoint, **keys)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """No waiting between attempts, a short patience, and an endpoint in the environment that must not win."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_args: 0)
        patch.setattr(s3, "_READ_SECONDS", 0.5)
        for name in ("AWS_PROFILE", "AWS_REGION", "HTTP_PROXY", "http_proxy"):
            patch.delenv(name, raising=False)
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.setenv(name, "http://192.0.2.1:9")
        found = Server()
        yield found
        found.close()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "NoSuchKey", ObjectMissing),
        (404, "NoSuchBucket", BucketMissing),
        (403, "AccessDenied", StoreDenied),
        (403, "InvalidAccessKeyId", StoreDenied),
        (403, "SignatureDoesNotMatch", StoreDenied),
        (403, "RequestTimeTooSkewed", StoreDenied),
        (400, "AuthorizationHeaderMalformed", StoreUnavailable),
        (400, "ExpiredToken", StoreDenied),
        (429, "TooManyRequests", StoreUnavailable),
        (408, "RequestTimeout", StoreUnavailable),
        (507, "InsufficientStorage", StoreUnavailable),
        (403, "QuotaExceeded", StoreUnavailable),
        (500, "InternalError", StoreUnavailable),
        (503, "SlowDown", StoreUnavailable),
    ],
)
def test_answers_to_a_read(server: Server, status: int, code: str, error: type[Exception]) -> None:
    """Each class means one thing to do."""
    store = server.tell(says(status, code))
    with pytest.raises(error):
        store.get("k")


@pytest.mark.parametrize("condition", [{"if_absent": True}, {"if_match": '"e"'}])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says(412, "PreconditionFailed"), PreconditionFailed),
        (says(404, "NoSuchKey"), PreconditionFailed),
        (says(404, "NoSuchBucket"), BucketMissing),
        (says(403, "AccessDenied"), StoreDenied),
        (says(500, "InternalError"), AmbiguousWrite),
        (says(503, "SlowDown"), AmbiguousWrite),
        (hangs_up, AmbiguousWrite),
        (stalls, AmbiguousWrite),
    ],
)
def test_a_conditional_write_is_asked_once(
    server: Server, answer: Answer, error: type[Exception], condition: dict[str, object]
) -> None:
    """A second attempt could be refused because of the first; when the outcome is not known it is said to be so."""
    store = server.tell(answer)
    with pytest.raises(error):
        store.put("k", b"body", **condition)
    assert server.asked == ["PUT"]


def test_a_conflict_is_tried_again(server: Server) -> None:
    """409 says that nothing was done because of another write under way; it does not last."""
    conflict = says(409, "ConditionalRequestConflict")
    assert server.tell(conflict, conflict, says(200)).put("k", b"body", if_absent=True) == '"e"'
    assert server.asked == ["PUT"] * 3
    store = server.tell(conflict)
    with pytest.raises(StoreUnavailable):
        store.put("k", b"body", if_match='"e"')


def test_a_plain_write_and_a_read_are_retried(server: Server) -> None:
    """A server that stumbles is no error."""
    server.tell(says(503, "SlowDown"), says(200)).put("k", b"body")
    assert server.asked == ["PUT"] * 2
    assert server.tell(hangs_up, says(503, "SlowDown"), says(200)).get("k") == (b"", '"e"')


def test_a_body_that_breaks_off_is_asked_for_again(server: Server) -> None:
    """Half an object is never given out."""
    assert server.tell(breaks_off, says(200)).get("k")[0] == b""
    store = server.tell(breaks_off)
    with pytest.raises(StoreUnavailable):
        store.get("k")
    assert server.asked == ["GET"] * 3


def test_a_body_that_trickles_is_cut_off(server: Server) -> None:
    """Its bytes come in time, but the whole would take for ever."""
    store = server.tell(trickles, trickles, says(200))
    begun = time.monotonic()
    assert store.get("k")[0] == b""
    assert time.monotonic() - begun < 5


def test_what_a_service_is_known_for_is_heeded(server: Server) -> None:
    """Etags without quotes, no checksums that were not asked for, and no delete whose condition would be ignored."""
    plain, known = server.tell(says(200)), Quirks(checksums=False, quoted_etags=False, conditional_delete=False)
    plain.put("k", b"", if_match='"e"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3, "quirks_of", lambda _endpoint: known)
        quirky = made(server.endpoint)
    quirky.put("k", b"", if_match='"e"')
    assert [headers["If-Match"] for headers in server.headers] == ['"e"', "e"]
    assert ["x-amz-checksum-crc32" in headers for headers in server.headers] == [True, False]
    with pytest.raises(StoreUnavailable, match="on a condition"):
        quirky.delete("k", if_match='"e"')
    assert server.asked == ["PUT", "PUT"]
    plain.delete("k", if_match='"e"')
    assert server.headers[-1]["If-Match"] == '"e"'


@pytest.mark.parametrize("write", [{}, {"if_absent": True}])
def test_a_server_that_is_not_there(write: dict[str, object]) -> None:
    """Nothing was sent, so nothing is ambiguous; the message holds the address and no key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = made(f"http://127.0.0.1:{port}")
    with pytest.raises(StoreUnavailable) as told:
        store.put("k", b"", **write)
    assert f"127.0.0.1:{port}" in str(told.value)
    assert "secret-key-x" not in f"{told.value} {told.value.hint}"


def test_no_request_leaves_the_endpoint(server: Server) -> None:
    """An endpoint in the environment does not win over the one that was given."""
    server.tell(says(200)).put("k", b"body")
    assert server.asked == ["PUT"]


def test_missing_keys_are_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any key the hint is to set them."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    store = S3Store(bucket="bucket", endpoint="http://127.0.0.1:9")
    with pytest.raises(StoreDenied) as told:
        store.get("k")
    assert "access key" in told.value.hint


DEAD_PROXY = "http://clerk:proxy-word@127.0.0.1:9"


def test_loopback_is_never_asked_through_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the operator's shell cannot reach this host's own server, whether NO_PROXY says so or not."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, DEAD_PROXY)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.tell(says(200))
    made(server.endpoint).put("k", b"body")
    assert server.asked == ["PUT"]
    store = made("http://store.example.org")
    with pytest.raises(StoreUnavailable) as told:
        store.put("k", b"body", if_absent=True)
    assert "proxy" in told.value.why.lower()
    assert "proxy-word" not in f"{told.value} {told.value.why} {told.value.hint}"


def test_given_keys_win_over_a_profile_that_is_missing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE of the operator's shell matters only where no keys are given; then the error names the profile."""
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    server.tell(says(200))
    made(server.endpoint).put("k", b"body")
    assert "access-key" in server.headers[0]["Authorization"]
    with pytest.raises(StoreDenied, match="AWS configuration") as told:
        S3Store(bucket="bucket", endpoint=server.endpoint)
    assert "work" in told.value.why
    assert "AWS_PROFILE" in told.value.hint


@pytest.mark.parametrize("variable", ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"])
def test_a_given_endpoint_stays_as_it_is(server: Server, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """The operator's shell may ask for another kind of endpoint of Amazon's, which a given one is not."""
    monkeypatch.setenv(variable, "true")
    server.tell(says(200))
    made(server.endpoint).put("k", b"body")
    assert server.asked == ["PUT"]


def test_a_configuration_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A broken ~/.aws/config is an error with the file's name, and no traceback."""
    broken = tmp_path / "config"
    broken.write_text("[default\n")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(broken))
    with pytest.raises(StoreDenied) as told:
        S3Store(bucket="bucket", endpoint="http://127.0.0.1:9").put("k", b"")
    assert str(broken) in told.value.why


@pytest.mark.parametrize(
    "variable",
    [
        "AWS_DEFAULTS_MODE",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
        "AWS_ACCOUNT_ID_ENDPOINT_MODE",
        "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES",
    ],
)
def test_a_variable_that_boto3_cannot_use_is_no_silent_store(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Nothing was sent, so the error speaks of this user's configuration and quotes the value."""
    monkeypatch.setenv(variable, "nonsense")
    with pytest.raises(StoreDenied, match="AWS configuration") as told:
        S3Store(bucket="bucket", endpoint="http://127.0.0.1:9", access_key=Secret("a"), secret_key=Secret("b"))
    assert "nonsense" in told.value.why


class Service:
    """Answers as an S3 service that is strict about checksums; `kept` is the object."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.kept = b""

    def __call__(self, request: http.server.BaseHTTPRequestHandler) -> None:
        added = any(name.lower() == "x-amz-sdk-checksum-algorithm" for name in request.headers)
        if self.fault == "away" or (added and self.fault == "refuses") or self.fault == "refuses all":
            return says(*((503, "SlowDown") if self.fault == "away" else (400, "InvalidArgument")))(request)
        if request.command == "PUT":
            self.kept = b"6;framing\r\nsample" if added and self.fault == "frames" else b"sample"
            return says(200)(request)
        request.send_response(200)
        request.send_header("Content-Length", str(len(self.kept)))
        request.send_header("ETag", '"e"')
        request.end_headers()
        request.wfile.write(self.kept)
        return None


@pytest.mark.parametrize(
    ("fault", "checksums"), [("", True), ("refuses", False), ("frames", False), ("refuses all", True), ("away", True)]
)
def test_a_service_that_refuses_checksums_is_learned(server: Server, fault: str, checksums: bool) -> None:
    """One sample tells: refused, or stored with the framing of a checksum, it is sent without one from then on. A
    service that refuses everything, or is away, teaches nothing."""
    server.tell(Service(fault))
    store = made(server.endpoint)
    store.learn("k")
    assert store.quirks.checksums is checksums
    server.tell(says(200))
    store.put("k", b"body")
    assert ("x-amz-sdk-checksum-algorithm" in server.headers[0]) is checksums


def test_refusing_every_checksum_is_no_proof_of_honesty(server: Server) -> None:
    """A service has checked one only if it accepts the right one."""
    assert not server.tell(says(400, "InvalidArgument")).refuses_damage("k")
    assert server.tell(says(400, "BadDigest"), says(200)).refuses_damage("k")
    assert not server.tell(says(200)).refuses_damage("k")


@pytest.mark.parametrize("header", [True, False])
def test_the_hint_names_the_region(server: Server, header: bool) -> None:
    """A bucket that is elsewhere: the service names the region in a header or in its answer."""

    def elsewhere(request: http.server.BaseHTTPRequestHandler) -> None:
        told = b"" if header else b"<Region>eu-west-3</Region>"
        code = b"PermanentRedirect" if header else b"AuthorizationHeaderMalformed"
        body = b"<Error><Code>" + code + b"</Code><Message>elsewhere</Message>" + told + b"</Error>"
        request.send_response(301 if header else 400)
        request.send_header("Content-Length", str(len(body)))
        if header:
            request.send_header("x-amz-bucket-region", "eu-west-3")
        request.end_headers()
        request.wfile.write(body)

    with pytest.raises(StoreUnavailable) as told:
        server.tell(elsewhere).put("k", b"body")
    assert "region eu-west-3: set CLAW_S3_REGION" in told.value.hint


def test_the_hint_of_a_throttled_read(server: Server) -> None:
    """A service that asks for fewer requests is there, and its address is right."""
    with pytest.raises(StoreUnavailable) as told:
        server.tell(says(503, "SlowDown")).get("k")
    assert "throttling" in told.value.hint


def test_the_hint_names_refused_checksums(server: Server) -> None:
    """Where nothing helps, the operator looks at the store and not at the region."""

    def refuses(request: http.server.BaseHTTPRequestHandler) -> None:
        body = b"<Error><Code>InvalidArgument</Code><Message>Unsupported header x-amz-checksum-crc32</Message></Error>"
        request.send_response(400)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with pytest.raises(StoreUnavailable) as told:
        server.tell(refuses).put("k", b"body")
    assert "checksums" in told.value.hint
