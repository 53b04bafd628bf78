#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-9-replay.txt "from empty volumes everything holds again, and a second container on the first one's volumes knows what it was told"
need_image

note "one container is told a colour and removed; another one on the same volumes is asked"
fresh alice
start_gateway tell
ask "$CONTAINER" smoke "please remember blue"
want_line 'I will remember blue' "the model's acknowledgement"
must "podman stop --time 30 $CONTAINER && podman rm $CONTAINER"
first=$STATE
start_gateway asked
ask "$CONTAINER" smoke "what is my colour?"
want_line 'your colour is blue' "the answer of a container that was never told"
must "podman stop --time 30 $CONTAINER && podman rm $CONTAINER"

note "a container on other volumes is asked the same"
fresh bob
[ "$STATE" != "$first" ] || fail "volumes of its own" "the first one's"
start_gateway stranger
ask "$CONTAINER" smoke "what is my colour?"
want_line 'I do not know your colour' "no knowledge of another's volumes"
must "podman stop --time 30 $CONTAINER && podman rm $CONTAINER"

# 11 is about the image alone and touches no volume; its evidence stands.
note "every scenario again, each on new, empty volumes; evidence in $EVIDENCE_DIR/replay"
must -t 900 "EVIDENCE_DIR=$EVIDENCE_DIR/replay TMPDIR=$SMOKE_TMP $REPO/tests/smoke/run 01 02 03 04 05 06 07 08 09 10 12 13 14"
want_line '^13 passed, 0 failed$' "every scenario to pass again"
