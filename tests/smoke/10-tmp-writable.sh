#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-5-tmp-writable.txt "/tmp and /var/tmp are writable for any uid, and so is every place that the contract says"
need_image

must "podman run --rm --userns=keep-id --user \$(id -u):\$(id -g) $IMAGE sh -c 'touch /tmp/probe /var/tmp/probe'"
for path in /tmp /var/tmp; do
  must "podman run --rm --network=none --entrypoint stat $IMAGE -c %a $path"
  want_equal "the mode of $path in the image" 1777 "$OUT"
done
must "podman run --rm --network=none --userns=keep-id --user 4711:4711 $IMAGE sh -c '
  id -u; for place in $(contract writable | tr '\n' ' '); do touch \$place/.probe && rm \$place/.probe && echo \$place is writable; done'"
for place in $(contract writable); do want_line "^$place is writable" "$place to be writable for uid 4711"; done
attempt "podman run --rm --network=none --userns=keep-id --user \$(id -u):\$(id -g) --entrypoint touch $IMAGE $(dirname "$(module)")/probe"
[ "$STATUS" != 0 ] || fail "a program that its own tenant cannot change" "a new file beside it"
