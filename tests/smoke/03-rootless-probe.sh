#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-2-rootless-probe.txt "an unprivileged user's container writes to /state and /logs, as that user"
need_image
fresh probe

must "podman run --rm --userns=keep-id --user \$(id -u):\$(id -g) \\
  -v $STATE:/state \\
  -v $LOGS:/logs \\
  --entrypoint sh $IMAGE -c 'id; touch /state/probe /logs/probe'"
want_line "uid=$(id -u)[^0-9].*gid=$(id -g)[^0-9]" "the caller's own uid and gid inside"
must "stat -c '%u %g %n' $STATE/probe $LOGS/probe"
want_equal "files on the host that belong to the caller" 2 "$(grep -c "^$(id -u) $(id -g) " <<< "$OUT" || true)"

note "no User in the image, so that any uid can be given"
must "podman image inspect --format '[{{.Config.User}}]' $IMAGE"
want_equal "the image's user" "[]" "$OUT"
