#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-6-build-load.txt "the image is in the store with its contract, and what is saved loads elsewhere as the same image"

if [ "${CLAW_SMOKE_BUILD:-}" = 1 ]; then
  command -v claw-runtime >/dev/null || PATH=$REPO/.venv/bin:$PATH
  must -t 3600 "claw-runtime image build"
fi
need_image
must "podman images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}' | grep -F '$IMAGE '"
must "podman image inspect --format '{{.Id}} {{.Digest}} {{.Os}}/{{.Architecture}}' $IMAGE"
want_line '^[0-9a-f]{64} sha256:[0-9a-f]{64} linux/amd64$' "an id, a digest and linux/amd64"
id=${OUT%% *}

note "the label io.claw.contract is the contract, whole"
podman image inspect --format '{{index .Config.Labels "io.claw.contract"}}' "$IMAGE" > "$SMOKE_TMP/label.json"
must "python3 -I -c 'import json, sys
label, contract = (json.load(open(path, encoding=\"utf-8\")) for path in sys.argv[1:])
print([key for key in sorted(label.keys() | contract.keys()) if label.get(key) != contract.get(key)])' $SMOKE_TMP/label.json $CONTRACT"
want_equal "parts in which the image's contract differs" "[]" "$OUT"

must "podman image inspect --format '{{json .Config.ExposedPorts}} {{json .Config.Entrypoint}} {{json .Config.Cmd}}' $IMAGE"
want_line "\"$(contract ports gateway)/tcp\"" "the gateway's port exposed"
want_line '"-I","-S"' "the entrypoint, isolated, by absolute path"

note "into an empty store of its own, so that nothing that is here already can help"
must -t 600 "podman save $IMAGE | podman --root $SMOKE_TMP/store --runroot $SMOKE_TMP/run --storage-driver overlay load"
must "podman --root $SMOKE_TMP/store --runroot $SMOKE_TMP/run --storage-driver overlay image inspect --format '{{.Id}}' $IMAGE"
want_equal "the id after saving and loading" "$id" "$OUT"
must "podman unshare rm -rf $SMOKE_TMP/store $SMOKE_TMP/run"
