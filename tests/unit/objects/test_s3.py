"""What S3 may answer, and what becomes of it; the server here is ten lines on loopback that answers as told."""

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator

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
