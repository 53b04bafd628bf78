"""What claw-runtime does, as logic over ports: no podman, boto3 or sqlite3 here, and the clock is injected."""
