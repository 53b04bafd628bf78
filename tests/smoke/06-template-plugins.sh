#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-3-template-plugins.txt "matrix and whatsapp are enabled in the template, and their packages are in the image"
need_image

podman run --rm --network=none --entrypoint cat "$IMAGE" "$(contract template source)" > "$SMOKE_TMP/template.json"
for index in $(seq 0 $(($(contract plugins entries | wc -l) - 1))); do
  id=$(contract plugins entries "$index" id)
  path=$(contract plugins entries "$index" path)
  must "python3 -I -c 'import json; template = json.load(open(\"$SMOKE_TMP/template.json\"))
print(template[\"channels\"][\"$id\"][\"enabled\"], template[\"plugins\"][\"entries\"][\"$id\"][\"enabled\"], \"$path\" in template[\"plugins\"][\"load\"][\"paths\"])'"
  want_equal "$id: channel enabled, plugin enabled, loaded from its package" "True True True" "$OUT"
  must "podman run --rm --network=none --entrypoint jq $IMAGE -r '.name + \" \" + .version' $path/package.json"
  want_equal "the package of $id" "$(contract plugins entries "$index" package) $(contract application version)" "$OUT"
done
must "python3 -I -c 'import json; print(sorted(json.load(open(\"$SMOKE_TMP/template.json\"))[\"channels\"]))'"
want_equal "the channels" "['matrix', 'whatsapp']" "$OUT"
