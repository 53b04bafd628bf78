#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-3-template-sanity.txt "the template names /state/workspace and /logs, and holds placeholders where secrets go"
need_image
template=$(contract template source)

must "podman run --rm --network=none --entrypoint rg $IMAGE -n '/state/workspace|/logs' -S $template"
want_line '"workspace": *"/state/workspace"' "the workspace below /state"
want_line '"file": *"/logs/' "the log below /logs"
for pattern in '(API_KEY|TOKEN)\s*[:=]\s*"[^$]' 'OPENROUTER_API_KEY.*OPENCLAW_MATRIX_TOKEN'; do
  attempt "podman run --rm --network=none --entrypoint rg $IMAGE -n '$pattern' -S $template"
  want_status 1
done

note "every leaf under a secret's name is one placeholder, and every placeholder is on the contract's list"
podman run --rm --network=none --entrypoint cat "$IMAGE" "$template" > "$SMOKE_TMP/template.json"
must "python3 -I - $SMOKE_TMP/template.json $CONTRACT <<'CHECK'
import json, re, sys
template, contract = (json.load(open(path, encoding='utf-8')) for path in sys.argv[1:])
bad, count = [], 0
def walk(node, where):
    global count
    if isinstance(node, (dict, list)):
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            walk(item, f'{where}/{key}')
    elif isinstance(node, str):
        names = re.findall(r'\\\$\{([^}]*)\}', node)
        count += len(names)
        bad.extend(f'{where}: {name} is not on the list' for name in names if name not in contract['values'])
        if re.search(r'(token|key|secret|password)\$', where, re.I) and not re.fullmatch(r'\\\$\{[A-Z_]+\}', node):
            bad.append(f'{where} is a literal')
walk(template, '')
used = set(re.findall(r'\\\$\{([^}]*)\}', json.dumps(template)))
used.add(contract.get('discovery', {}).get('value'))  # which extensions to look through is no configuration
bad += [f'{name} is on the list and nowhere in the template' for name in contract['values'] if name not in used]
print(f'{count} placeholders;', '; '.join(bad) or 'nothing wrong')
sys.exit(bool(bad))
CHECK"
want_no_line '^0 placeholders' "at least one placeholder"
