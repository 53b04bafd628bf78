#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/lib.sh"
begin task-2-prefix-env.txt "tools that a tenant installs go to /state, and are there again in the next container"
need_image
fresh prefix

# shellcheck disable=SC2016
must "podman run --rm --userns=keep-id --user \$(id -u):\$(id -g) \\
  -v $STATE:/state --entrypoint sh $IMAGE -c "'\
'\''echo $PATH; echo $NPM_CONFIG_PREFIX; echo $UV_CACHE_DIR'\'
want_line '^/state/bin:/state/npm/bin:' "the tenant's own directories first on PATH"
want_line '^/state/npm$' "NPM_CONFIG_PREFIX below /state"
want_line '^/state/uv-cache$' "UV_CACHE_DIR below /state"

must "podman run --rm --userns=keep-id --user \$(id -u):\$(id -g) -v $STATE:/state $IMAGE env"
for name in HOME NPM_CONFIG_PREFIX NPM_CONFIG_CACHE UV_CACHE_DIR PIP_CACHE_DIR XDG_CACHE_HOME XDG_DATA_HOME OPENCLAW_STATE_DIR; do
  want_line "^$name=/state/" "$name below /state"
done
want_no_line '^NPM_CONFIG_OFFLINE=' "the gateway's npm guard not in the tenant's own shell"

note "a package of our own, packed and installed without a network"
mkdir "$SMOKE_TMP/greeter"
printf '%s\n' '{"name": "greeter", "version": "1.0.0", "bin": {"greet": "greet.js"}}' > "$SMOKE_TMP/greeter/package.json"
printf '%s\n' '#!/usr/bin/env node' 'console.log("installed in an earlier container")' > "$SMOKE_TMP/greeter/greet.js"
must "podman run --rm --network=none --userns=keep-id --user \$(id -u):\$(id -g) -v $STATE:/state -v $SMOKE_TMP/greeter:/mnt:ro \\
  $IMAGE sh -c 'cd /tmp && npm pack --silent /mnt && npm install --silent --global ./greeter-1.0.0.tgz'"
must "podman run --rm --network=none --userns=keep-id --user \$(id -u):\$(id -g) -v $STATE:/state \\
  $IMAGE sh -c 'command -v greet; greet'"
want_line '^/state/npm/bin/greet$' "the command below /state"
want_line '^installed in an earlier container$' "the command's output"
