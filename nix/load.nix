# `nix run .#load`: the image into Podman's store, and its layers mapped for this user before anybody waits for that.
{
  writeShellScriptBin,
  openclaw-nix-image,
}:
writeShellScriptBin "claw-image-load" ''
  set -eu
  podman load < ${openclaw-nix-image}
  echo "mapping the layers for this user (once per build)"
  uid=$(id -u) gid=$(id -g) # the mapping of runtime/claw_runtime/engine/mapping.py: each one costs a copy of its own
  exec podman run --rm --network=none --uidmap=0:1:1 --uidmap="$uid:0:1" --gidmap=0:1:1 --gidmap="$gid:0:1" ''${CLAW_CGROUP_PARENT:+--cgroup-parent "$CLAW_CGROUP_PARENT"} \
    --entrypoint /bin/true ${openclaw-nix-image.contract.image}
''
