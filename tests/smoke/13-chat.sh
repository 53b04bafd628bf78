#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-7-chat.txt "the gateway holds a conversation, for its token only; a wrongly trimmed image would be ready and fail here"
need_image
fresh chat
port=$(contract ports gateway)

note "the boot tuning is in place"
tuning=$(contract boot_tuning path)
must "podman run --rm --network=none --entrypoint jq $IMAGE -cS . $tuning"
want_equal "$tuning" "$(python3 -I -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))["boot_tuning"]["json"],
  sort_keys=True, separators=(",", ":")))' "$CONTRACT")" "$OUT"

start_gateway chat
request="curl -sS -m 30 -o /dev/null -w '%{http_code}' -H content-type:application/json -d '{\"model\": \"openclaw/default\", \"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}'"
must "podman exec $CONTAINER $request http://127.0.0.1:$port/v1/chat/completions"
want_equal "the status without a token" 401 "$OUT"
must "podman exec $CONTAINER $request -H 'Authorization: Bearer wrong' http://127.0.0.1:$port/v1/chat/completions"
want_equal "the status with a wrong token" 401 "$OUT"

ask "$CONTAINER" smoke "please remember blue"
want_status 0
want_line '^200$' "status 200"
want_line 'I will remember blue' "the model's acknowledgement"
ask "$CONTAINER" smoke "what is my colour?"
want_line 'your colour is blue' "the right answer"
ask "$CONTAINER" another "what is my colour?"
want_line 'I do not know your colour' "another conversation to know nothing of it"

must "podman exec $CONTAINER cat /tmp/model.jsonl"
want_line '"spoken": \["hello"\]|"spoken": \[".*please remember blue' "the provider to be asked"
want_no_line '"spoken": \["hello"\]' "no turn for a caller without the right token"
want_no_line '"tools": 0,' "the agent's tools with every turn"
must "podman logs $CONTAINER"
want_no_line '[Cc]annot find (module|package)|ERR_MODULE_NOT_FOUND|ENOENT.*(opt|nix/store)' "no module or document missing from the image"
must "podman stop --time 30 $CONTAINER"
