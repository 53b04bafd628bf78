"""Whether a port of this host is free: an orphan of an engine may hold one that no container has any more."""

import socket


def is_free(port: int) -> bool:
    """Whether a container could publish this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
