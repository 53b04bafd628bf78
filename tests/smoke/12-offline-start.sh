#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
ready_seconds=${READY_SECONDS:-25}
begin task-7-offline-start.txt "without any network the gateway is ready in time ($ready_seconds s), and its matrix provider starts and stays"
need_image

note "exactly as in the plan: no value, default root file system"
fresh plain
must "podman run -d --name openclaw-nix-offline-$SMOKE_ID --network=none --userns=keep-id --user \$(id -u):\$(id -g) \\
  -v $STATE:/state -v $LOGS:/logs \\
  -p 18789:18789 $IMAGE"
wait_ready "openclaw-nix-offline-$SMOKE_ID" "$ready_seconds"
must "podman logs openclaw-nix-offline-$SMOKE_ID"
want_line 'feature.off.*matrix' "one warning that matrix is off without its values"
want_line "$(contract values OPENCLAW_GATEWAY_TOKEN file)" "the place of the generated token"
token=$(cat "$STATE$(contract values OPENCLAW_GATEWAY_TOKEN file | sed 's|^/state||')")
! grep -qF -e "$token" "$EVIDENCE" || fail "the token itself nowhere in the log" "it is there"
must "podman stop --time 30 openclaw-nix-offline-$SMOKE_ID && podman inspect --format '{{.State.ExitCode}}' openclaw-nix-offline-$SMOKE_ID"
want_line '^0$' "exit status 0 after SIGTERM"
must "podman rm -f openclaw-nix-offline-$SMOKE_ID"

note "hardened as a tenant's container is, with the values of a matrix account whose server is out of reach"
fresh matrix
container=claw-smoke-matrix-$SMOKE_ID
must "podman run -d --name $container $HARDENED \\
  -v $STATE:/state -v $LOGS:/logs \\
  -e OPENCLAW_MATRIX_HOMESERVER=https://matrix.example.org -e OPENCLAW_MATRIX_USER_ID=@smoke:matrix.example.org \\
  -e OPENCLAW_MATRIX_TOKEN=not-a-token $IMAGE"
wait_ready "$container" "$ready_seconds"

# The provider's exit for an untrusted plugin comes after the gateway has called itself ready: wait it out.
sleep 8
must "podman logs $container"
want_line '\[matrix\].*starting provider' "the matrix provider to start"
want_no_line 'openKeyedStore|channel exited' "no exit of a channel"
want_no_line 'npm (view|install|error|ERR)' "no attempt to install anything"
want_no_line 'not-a-token' "no secret in the log"
must "podman exec $container sh -c 'grep -E \"^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp):\" /proc/1/status; touch /probe 2>&1 || true'"
want_line '^CapEff:[[:space:]]*0+$' "no capability in effect"
want_line '^CapBnd:[[:space:]]*0+$' "no capability within reach"
want_line '^NoNewPrivs:[[:space:]]*1$' "no new privileges"
want_line 'Read-only file system' "a read-only root"
must "ls -l $LOGS"
want_line 'openclaw\.log$' "the log file in /logs"
must "podman stop --time 30 $container && podman inspect --format '{{.State.ExitCode}}' $container"
want_line '^0$' "exit status 0 after SIGTERM"
