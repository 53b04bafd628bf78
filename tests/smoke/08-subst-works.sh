#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-4-subst-works.txt "an allowlisted name is substituted, and no other name ever is"
need_image
fresh subst
run="podman run --rm --userns=keep-id --user \$(id -u):\$(id -g) -v $STATE:/state -v $LOGS:/logs"
template=$(contract template source) target=$(contract template target)

must "podman run --rm -e OPENCLAW_MATRIX_TOKEN=abc123 --userns=keep-id --user \$(id -u):\$(id -g) -v $STATE:/state -v $LOGS:/logs $IMAGE sh -c 'rg -n \"abc123\" /config/openclaw.json'"
want_line 'abc123' "the value in the configuration"

note "the whole document with that one value"
podman run --rm --network=none --entrypoint cat "$IMAGE" "$template" > "$SMOKE_TMP/template.json"
podman run --rm -e OPENCLAW_MATRIX_TOKEN=abc123 --userns=keep-id --user "$(id -u):$(id -g)" -v "$STATE:/state" -v "$LOGS:/logs" \
  "$IMAGE" cat "$target" > "$SMOKE_TMP/seeded.json" 2>> "$EVIDENCE"
must "python3 -I $REPO/tests/smoke/expected_config.py $CONTRACT $SMOKE_TMP/template.json $SMOKE_TMP/seeded.json $STATE OPENCLAW_MATRIX_TOKEN=abc123"

note "a value that looks like a placeholder stays text, here and in OpenClaw's own expansion (\$\${…} is its escape)"
must "$run -e SMOKE_CANARY=canary-in-clear -e 'OPENCLAW_MATRIX_TOKEN=\${SMOKE_CANARY}' $IMAGE \\
  sh -c 'rg -c canary-in-clear $target; jq .channels.matrix.accessToken $target'"
want_no_line '^[0-9]+$' "no value of a name outside the list"
want_line '^"\$\$\{SMOKE_CANARY\}"$' "the text, escaped"

note "a template that names something outside the list"
sed "s|/state/workspace|/state/\${SMOKE_CANARY}|" "$SMOKE_TMP/template.json" > "$SMOKE_TMP/foreign.json"
grep -q SMOKE_CANARY "$SMOKE_TMP/foreign.json" || fail "a changed template" "none"
must "$run -e SMOKE_CANARY=canary-in-clear -v $SMOKE_TMP/foreign.json:$template:ro $IMAGE \\
  sh -c 'rg -c canary-in-clear $target; jq .agents $target'"
want_no_line '^[0-9]+$' "no value of a name outside the list"
want_line 'SMOKE_CANARY.*not allowlisted' "a warning with the name"
attempt "$run --network=none -e SMOKE_CANARY=canary-in-clear -v $SMOKE_TMP/foreign.json:$template:ro $IMAGE"
want_status 78
want_line 'SMOKE_CANARY' "the name in the message"
want_no_line 'canary-in-clear' "no value in the message"
