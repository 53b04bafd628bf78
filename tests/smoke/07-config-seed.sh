#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-4-config-seed.txt "every start writes /config anew from the template, and /state is left as it was"
need_image
fresh seed

for run in first second; do
  note "$run run on the same volumes, exactly as in the plan: no value is given"
  must "podman run --rm --userns=keep-id --user \$(id -u):\$(id -g) -v $STATE:/state -v $LOGS:/logs $IMAGE sh -c 'cat /config/openclaw.json | head'"
  want_line '^ *\{' "a configuration"
  [ "$run" = second ] || must "mkdir -p $STATE/workspace; echo kept > $STATE/workspace/note"
done
must "cat $STATE/workspace/note"
want_equal "a file of the tenant after the second start" kept "$OUT"

note "the whole document: the template with values put in, missing ones left out, their features off (no token is printed)"
podman run --rm --network=none --entrypoint cat "$IMAGE" "$(contract template source)" > "$SMOKE_TMP/template.json"
podman run --rm --userns=keep-id --user "$(id -u):$(id -g)" -v "$STATE:/state" -v "$LOGS:/logs" "$IMAGE" \
  cat "$(contract template target)" > "$SMOKE_TMP/seeded.json" 2>> "$EVIDENCE"
must "python3 -I $REPO/tests/smoke/expected_config.py $CONTRACT $SMOKE_TMP/template.json $SMOKE_TMP/seeded.json $STATE"

note "a restart of one and the same container: what was changed or left in /config is gone"
must "podman run -d --name claw-smoke-seed-$SMOKE_ID --network=none --userns=keep-id --user \$(id -u):\$(id -g) \\
  -v $STATE:/state -v $LOGS:/logs $IMAGE sleep 300"
target=$(contract template target)
# shellcheck disable=SC2016
settle='for _ in $(seq 100); do podman exec '"claw-smoke-seed-$SMOKE_ID test -s $target"' && exit 0; sleep 0.1; done; exit 1'
must "$settle"
must "podman exec claw-smoke-seed-$SMOKE_ID sh -c 'sha256sum < $target; stat -c %a $target'"
before=$OUT
want_line '^600$' "a configuration that only its owner reads"
must "podman exec claw-smoke-seed-$SMOKE_ID sh -c 'echo changed > $target; echo stray > /config/stray.json'"
must "podman restart --time 0 claw-smoke-seed-$SMOKE_ID"
must "$settle"
must "podman exec claw-smoke-seed-$SMOKE_ID sh -c 'sha256sum < $target; stat -c %a $target'"
want_equal "the configuration after a restart" "$before" "$OUT"
attempt "podman exec claw-smoke-seed-$SMOKE_ID test -e /config/stray.json"
want_status 1
