"""HTTP probes of a container's loopback port, with the standard library's client: no pool, no redirects, no retries."""

import http.client
import socket


class HttpProber:
    """Implements `ports.Prober`."""

    def get(self, port: int, path: str, timeout: float, bearer: str | None = None) -> tuple[int, bytes] | None:
        """HTTP status and the first 64 KiB of the body; None when nothing answers in `timeout` seconds."""
        headers = {"Connection": "close"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(65_536)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def is_free(self, port: int) -> bool:
        """Whether the port can be bound now; a connection that ended a moment ago does not count."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True
