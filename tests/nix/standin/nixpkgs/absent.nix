# Packages that claw names and that this test double cannot hold: each evaluates, and says so when it is built.
{ final }:
let
  absent =
    name:
    final.runCommand name { } ''
      echo "the stand-in package set has no ${name}" >&2
      exit 1
    '';
in
builtins.listToAttrs (
  map (name: { inherit name; value = absent name; }) [
    "deadnix"
    "nixfmt-tree"
    "podman"
    "ruff"
    "skopeo"
    "statix"
  ]
)
