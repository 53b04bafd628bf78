# shellcheck shell=bash
# What every smoke script shares: evidence, checks, fresh volumes, and removal of everything it made. Sourced, never run.
#
#   IMAGE         image to look at            (default: the contract's)
#   CONTRACT      what the image promises     (default: images/openclaw-nix/contract.json)
#   EVIDENCE_DIR  where task-N-*.txt are kept (default: evidence/ in the repository)
#
# A script calls `begin FILE CLAIM`, runs commands with `attempt` or `must`, and checks what they said with `want_*`.
# The first unmet check ends it with status 1; the evidence then says what was expected and what was seen.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CONTRACT=$(realpath "${CONTRACT:-$REPO/images/openclaw-nix/contract.json}")
EVIDENCE_DIR=$(realpath -m "${EVIDENCE_DIR:-$REPO/evidence}")

# contract KEY… : one value of the contract; a list one item a line, an object one key a line.
contract() {
  python3 -I -c '
import json, sys
value = json.load(open(sys.argv[1], encoding="utf-8"))
for key in sys.argv[2:]:
    value = value[int(key)] if isinstance(value, list) else value[key]
print("\n".join(map(str, value)) if isinstance(value, (dict, list)) else value)' "$CONTRACT" "$@"
}

# The gateway's module: argv is an interpreter, perhaps its options, the module, and the module's arguments.
module() { contract exec argv | grep '^/' | sed -n 2p; }

IMAGE=${IMAGE:-$(contract image)}
export REPO CONTRACT EVIDENCE_DIR IMAGE

begin() { # FILE CLAIM
  CLAIM=$2 FAILURE="" VERDICT=FAIL OUT="" STATUS=0 EVIDENCE=$EVIDENCE_DIR/$1
  SMOKE_TMP=$(mktemp -d "${TMPDIR:-/tmp}/claw-smoke.XXXXXX")
  SMOKE_ID=${SMOKE_TMP##*.}-$$
  trap 'finish $?' EXIT
  RUNNING=""
  trap 'FAILURE="interrupted"; [ -z "$RUNNING" ] || kill "$RUNNING"; exit 130' INT TERM
  if ! { mkdir -p "$EVIDENCE_DIR" && : > "$EVIDENCE"; } 2>/dev/null; then
    EVIDENCE=/dev/null
    fail "a place for evidence" "$EVIDENCE_DIR is not writable for $(id -un); set EVIDENCE_DIR"
  fi
  command -v podman >/dev/null || fail "podman on PATH" "none; on a host that host/setup.sh prepared: host/run $0"
  shim_podman
  {
    echo "claim:   $CLAIM"
    echo "script:  tests/smoke/$(basename "$0")"
    echo "date:    $(date --utc +%Y-%m-%dT%H:%M:%SZ)"
    echo "podman:  $(podman --version)"
    echo "image:   $IMAGE"
    podman image inspect --format $'id:      {{.Id}}\ndigest:  {{.Digest}}' "$IMAGE" 2>/dev/null || echo "id:      not in Podman's store"
  } >> "$EVIDENCE"
}

need_image() {
  podman image exists "$IMAGE" || fail "the image $IMAGE in Podman's store" "no such image; build it: claw-runtime image build"
}

# Commands are run as a reader would type them, so what this machine needs besides is added on the way to Podman: the
# cgroup parent where the host has one prepared, and a label by which everything that a script started is found again.
shim_podman() {
  local real
  real=$(command -v podman)
  mkdir "$SMOKE_TMP/bin"
  # shellcheck disable=SC2016 # the quotes are for the shim; the variable is this shell's
  cat > "$SMOKE_TMP/bin/podman" <<SHIM
#!/bin/sh
case \${1:-} in run | create)
  verb=\$1; shift
  exec '$real' "\$verb" --label io.claw.smoke=$SMOKE_ID ${CLAW_CGROUP_PARENT:+--cgroup-parent '$CLAW_CGROUP_PARENT'} "\$@" ;;
esac
exec '$real' "\$@"
SHIM
  chmod 755 "$SMOKE_TMP/bin/podman"
  PATH=$SMOKE_TMP/bin:$PATH
}

finish() { # STATUS ; the EXIT trap
  trap - EXIT INT TERM
  set +e
  if [ "$1" = 0 ] && [ -z "$FAILURE" ]; then VERDICT=PASS; fi
  [ "$VERDICT" = PASS ] || : "${FAILURE:=ended with status $1 in the middle of the script}"
  { echo; echo "verdict: $VERDICT - ${FAILURE:-$CLAIM}"; } >> "$EVIDENCE"
  local left
  left=$(podman ps --all --quiet --filter "label=io.claw.smoke=$SMOKE_ID" 2>/dev/null)
  # shellcheck disable=SC2086
  [ -z "$left" ] || { podman kill $left; podman rm --force $left; } >/dev/null 2>&1
  rm -rf "$SMOKE_TMP" 2>/dev/null || podman unshare rm -rf "$SMOKE_TMP"
  [ "$VERDICT" = PASS ] && exit 0
  echo "$(basename "$0"): $FAILURE" >&2
  echo "  evidence: $EVIDENCE" >&2
  exit 1
}

fail() { # EXPECTED SEEN
  FAILURE="expected $1; saw $2"
  exit 1
}

note() { printf '\n# %s\n' "$*" >> "$EVIDENCE"; }

# fresh NAME : empty host directories $STATE and $LOGS
fresh() {
  STATE=$SMOKE_TMP/$1/state LOGS=$SMOKE_TMP/$1/logs
  mkdir -p "$STATE" "$LOGS"
  export STATE LOGS
}

# attempt [-t SECONDS] COMMAND : run a shell text; what it printed is in $OUT, its status in $STATUS
attempt() {
  local limit=180
  if [ "$1" = -t ]; then limit=$2; shift 2; fi
  printf '\n$ %s\n' "$1" >> "$EVIDENCE"
  STATUS=0
  # In the background, since a signal would wait for a command in the foreground, which is in a process group of its own.
  timeout --kill-after=5 "$limit" bash -c "$1" > "$SMOKE_TMP/output" 2>&1 </dev/null &
  RUNNING=$!
  wait "$RUNNING" || STATUS=$?
  RUNNING=""
  OUT=$(tr -d '\000' < "$SMOKE_TMP/output" | sed -e $'s/\x1b\\[[0-9;]*m//g')
  printf '%s%s[status %s]\n' "$OUT" "${OUT:+$'\n'}" "$STATUS" >> "$EVIDENCE"
  [ "$STATUS" != 124 ] || fail "an end within $limit s of: ${1%%$'\n'*}" "none"
}

must() { # like attempt, and it has to succeed
  attempt "$@"
  want_status 0
}

excerpt() { printf '%s' "${1:0:300}" | tr '\n' ' '; }

want_status() { [ "$STATUS" = "$1" ] || fail "status $1" "status $STATUS: $(excerpt "$(tail -n 3 <<< "$OUT")")"; }
want_line() { grep -qE -e "$1" <<< "$OUT" || fail "$2 (a line matching $1)" "$(excerpt "${OUT:-nothing}")"; }
want_no_line() { ! grep -qE -e "$1" <<< "$OUT" || fail "$2 (no line matching $1)" "$(excerpt "$(grep -E -e "$1" <<< "$OUT")")"; }
want_equal() { # WHAT EXPECTED SEEN
  if [ "$2" = "$3" ]; then note "$1: as expected: $(excerpt "${3:-nothing}")"; return; fi
  note "$1: expected:"$'\n'"$2"$'\n'"# seen:"$'\n'"$3"
  if [ "$(wc -l <<< "$2")" -gt 1 ]; then
    fail "$1 as it is promised (lines <)" "$(excerpt "$(diff <(echo "$2") <(echo "$3") | grep '^[<>]')")"
  fi
  fail "$1 to be $(excerpt "${2:-nothing}")" "$(excerpt "${3:-nothing}")"
}

# The hardening under which the runtime runs every tenant (ContainerSpec in ports/engine.py), here without a network as well.
# shellcheck disable=SC2016
HARDENED='--network=none --userns=keep-id --user $(id -u):$(id -g) --cap-drop=all --security-opt=no-new-privileges \
  --read-only --tmpfs /config:rw,mode=1777 --tmpfs /tmp:rw,mode=1777 --tmpfs /var/tmp:rw,mode=1777'

# wait_ready CONTAINER SECONDS : until the gateway is ready by the contract's policy, asked inside the container
wait_ready() {
  must -t $(($2 + 15)) "podman exec -i $1 python3 -I - '$(ready_policy)' $2 < '$REPO/tests/smoke/ready.py'"
}

ready_policy() {
  python3 -I -c '
import json, sys
contract = json.load(open(sys.argv[1], encoding="utf-8"))
probes = contract["probes"]
bearer = contract["values"].get(probes["ready"].get("bearer"), {}).get("file", "")
print(json.dumps({"port": contract["ports"]["gateway"], "bearer_file": bearer, **probes}))' "$CONTRACT"
}

# ask CONTAINER USER TEXT : say TEXT in USER's conversation. The token is read inside the container, so that no evidence has it.
ask() {
  local body
  body=$(python3 -I -c 'import json, sys; print(json.dumps({"model": "openclaw/default", "user": sys.argv[1],
    "messages": [{"role": "user", "content": sys.argv[2]}]}))' "$2" "$3")
  attempt "podman exec $1 sh -c 'printf \"Authorization: Bearer %s\" \"\$(cat $(contract values OPENCLAW_GATEWAY_TOKEN file))\" |
  curl -sS -m 90 -w \"\\n%{http_code}\\n\" -H @- -H content-type:application/json -d \"\$0\" \\
    http://127.0.0.1:$(contract ports gateway)/v1/chat/completions' '$body'"
}

# start_gateway NAME : a hardened gateway on $STATE and $LOGS that talks to the model stub beside it; id in $CONTAINER
STUB_PORT=18080
start_gateway() {
  must "podman run -d --name claw-smoke-$1-$SMOKE_ID $HARDENED \\
  -v $STATE:/state -v $LOGS:/logs -v $REPO/tests/fakes/model_stub.py:/mnt/model_stub.py:ro \\
  -e CLAW_MODEL_BASE_URL=http://127.0.0.1:$STUB_PORT/v1 -e CLAW_MODEL_API_KEY=not-a-key -e CLAW_MODEL_ID=stub-1 \\
  $IMAGE"
  CONTAINER=claw-smoke-$1-$SMOKE_ID
  must "podman exec -d $CONTAINER python3 -I /mnt/model_stub.py $STUB_PORT /tmp/model.jsonl"
  wait_ready "$CONTAINER" "${READY_SECONDS:-60}"
}
