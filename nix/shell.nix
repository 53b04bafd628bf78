# `nix develop`: what this repository is worked on with.
{
  mkShellNoCC,
  deadnix,
  jq,
  nixfmt-tree,
  podman,
  python3,
  ruff,
  skopeo,
  statix,
}:
mkShellNoCC {
  packages = [
    deadnix
    jq
    nixfmt-tree
    podman
    python3
    ruff
    skopeo
    statix
  ];
}
