# `nix run .#load`: the image into Podman's store, and its layers mapped for this user before anybody waits for that.
{
  writeShellScriptBin,
  openclaw-nix-image,
}:
writeShellScriptBin "claw-image-load" ''
  set -eu
  podman load < ${openclaw-nix-image}
  echo "mapping the layers for this user (once per build)"
  exec podman run --rm --network=none --userns=keep-id ''${CLAW_CGROUP_PARENT:+--cgroup-parent "$CLAW_CGROUP_PARENT"} \
    --entrypoint /bin/true ${openclaw-nix-image.contract.image}
''
