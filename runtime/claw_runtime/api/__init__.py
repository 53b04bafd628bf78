"""The HTTP face: FastAPI over a 0600 Unix socket, and the client that the CLI uses."""
