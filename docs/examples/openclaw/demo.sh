#!/usr/bin/env bash
# The main job, live: alice tells her assistant a colour, gives her container back, comes back in another container, and
# is remembered; leaves once more, and finds her own container again in milliseconds. Bob, whose container had loaded the
# gateway before he came, knows nothing of it. Real Podman, real OpenClaw, a real S3 server. Only the paid model is played
# by a stub, which runs inside the tenant's own network.   Started by `make demo`; leaves nothing behind.
set -euo pipefail
top=$(cd "$(dirname "$0")/../../.." && pwd)
PATH="$top/.venv/bin:$PATH"
data=$(mktemp -d -t claw-demo.XXXXXX)
export CLAW_HOME="$data" CLAW_RUN="$data/run"
unset CLAW_BUCKET CLAW_S3_ENDPOINT CLAW_CONFIG
daemon=

bold= plain=
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
fail() { printf '\ndemo: FAILED: %s\n' "$*" >&2; tail -n 20 "$data/daemon.log" >&2; exit 1; }

clean_up() {
  status=$?
  trap - EXIT INT TERM
  if [ -n "$daemon" ]; then
    for tenant in alice bob; do claw-runtime release "$tenant" --no-sync --no-affinity >/dev/null 2>&1 || true; done
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
  fi
  rm -rf "$data"
  exit "$status"
}
trap clean_up EXIT INT TERM

# The example's workload with a model that is at hand, a stub that is mounted read-only into every container; with the
# extensions named that are used, and room for frozen tenants.
mkdir "$data/demo"
cp "$top/tests/fakes/model_stub.py" "$data/demo/"
sed -e '/^  TZ:/a\  CLAW_MODEL_BASE_URL: http://127.0.0.1:18080/v1\n  CLAW_MODEL_API_KEY: no-secret\n  CLAW_MODEL_ID: stub-1' \
  -e 's/^  #CLAW_BUNDLED_EXTENSIONS:/  CLAW_BUNDLED_EXTENSIONS:/' -e 's/^  #warmth: .*/  warmth: {created: 2, frozen: 2}/' \
  "$top/docs/examples/openclaw/workload.yaml" > "$data/workload.yaml"
printf 'volumes:\n  demo: {source: %s/demo, target: /opt/demo}\n' "$data" >> "$data/workload.yaml"

field() { python3 -c 'import json, sys; value = json.load(sys.stdin)
for name in sys.argv[1].split("."): value = value[int(name) if name.isdigit() else name]
print(value)' "$1"; }
model() { claw-runtime exec --detach "$1" -- /usr/bin/python3 -I /opt/demo/model_stub.py 18080 >/dev/null; }
ask() { # tenant, text
  local status; status=$(claw-runtime status "$1" -o json)
  local endpoint; endpoint=$(printf '%s' "$status" | field endpoints.http)
  printf '%s> %s%s\n' "$bold" "$2" "$plain" >&2
  python3 "$top/docs/examples/openclaw/chat.py" "$endpoint" "$CLAW_HOME/tenants/$1/secrets/OPENCLAW_GATEWAY_TOKEN" "$2"
}
expect() { # answer, word
  printf '  %s\n' "$1"
  case "$1" in *"$2"*) ;; *) fail "the answer does not say '$2'" ;; esac
}

say "The daemon: API on a 0600 socket, a pool of two warm slots, its own S3 server"
claw-runtime up --limits drop "$data/workload.yaml" 2> "$data/daemon.log" &
daemon=$!
waits() { # tier, count
  for _ in $(seq 300); do
    kill -0 "$daemon" 2>/dev/null || fail "the daemon ended"
    ready=$(claw-runtime pool list -o json 2>/dev/null | field "0.tiers.$1.ready" 2>/dev/null || echo 0)
    [ "$ready" != "$2" ] || return 0
    sleep 0.2
  done
  fail "the pool did not fill"
}
waits created 2
run claw-runtime pool list

say "Alice claims a container and says something worth keeping"
run claw-runtime claim alice
first=$(claw-runtime status alice -o json | field containerId)
model alice
expect "$(ask alice 'please remember blue')" blue

say "She gives it back: the state becomes generation 1 in S3, everything local goes (--no-affinity)"
run claw-runtime release alice --no-affinity
run claw-runtime sync list alice | sed -nE '1,2p; /sqlite|\.jsonl$|workspace\/[A-Z]/p'
for slot in "$CLAW_HOME"/slots/*/state; do
  [ -z "$(ls -A "$slot")" ] || fail "a local tree is left in $slot"
done

say "She comes back, in another container"
run claw-runtime claim alice
[ "$(claw-runtime status alice -o json | field containerId)" != "$first" ] || fail "it is the same container"
model alice
expect "$(ask alice 'what is my colour?')" blue

say "Meanwhile one container shall wait with the gateway's modules loaded: the pool is changed as it runs"
run claw-runtime pool scale openclaw --warmth created=1 --warmth prewarmed=1

say "She leaves, and comes straight back: the state is saved all the same, and her own container was only frozen"
home=$(claw-runtime status alice -o json | field containerId)
run claw-runtime release alice
run claw-runtime claim alice
[ "$(claw-runtime status alice -o json | field containerId)" = "$home" ] || fail "it is another container"
expect "$(ask alice 'what is my colour?')" blue

say "Bob is somebody else, and is let into the container that waits"
waits prewarmed 1
run claw-runtime claim bob
model bob
answer=$(ask bob 'what is my colour?')
printf '  %s\n' "$answer"
case "$answer" in *blue*) fail "bob knows alice's colour" ;; esac
if python3 "$top/docs/examples/openclaw/chat.py" "$(claw-runtime status bob -o json | field endpoints.http)" \
  "$CLAW_HOME/tenants/alice/secrets/OPENCLAW_GATEWAY_TOKEN" 'hello' 2> "$data/refused"; then fail "bob's gateway took alice's token"; fi
printf "  with alice's token: %s\n" "$(cat "$data/refused")"
run claw-runtime status

say "What the claims took, until the gateway was ready"
run claw-runtime pool metrics openclaw

say "Both go home"
run claw-runtime release alice --no-affinity
run claw-runtime release bob --no-affinity
say "Done: alice was remembered across two containers, and bob knew nothing of it"
