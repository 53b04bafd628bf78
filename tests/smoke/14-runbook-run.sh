#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-8-runbook-run.txt "the commands of IMAGE_BY_HAND.md run exactly as they are printed: the gateway starts, and logs appear in /logs"
need_image

must "python3 -I $REPO/tests/smoke/runbook_blocks.py $REPO/docs/IMAGE_BY_HAND.md run > $SMOKE_TMP/runbook.sh; wc -l < $SMOKE_TMP/runbook.sh"
want_no_line '^0$' "blocks marked for execution"
# TMPDIR: what the runbook makes with mktemp is removed with everything else.
must -t 300 "cd $REPO && TMPDIR=$SMOKE_TMP sh -eux $SMOKE_TMP/runbook.sh"
want_line '^ *.*"ok": *true' "the gateway's answer on its live path"
want_line 'openclaw\.log' "the log file in /logs"
want_line 'I will remember blue' "the answer to a question"
want_line '^the runbook ends here$' "the last block's last line"
attempt "podman ps --all --quiet --filter label=io.claw.smoke=$SMOKE_ID"
want_equal "containers that the runbook leaves behind" "" "$OUT"
