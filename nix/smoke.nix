# `nix run .#smoke`: the smoke checks against the loaded image and the contract that it carries.
{
  writeShellScriptBin,
  writeText,
  openclaw-nix-image,
}:
let
  inherit (openclaw-nix-image) contract;
in
writeShellScriptBin "claw-image-smoke" ''
  set -eu
  export IMAGE=''${IMAGE:-${contract.image}} EVIDENCE_DIR=''${EVIDENCE_DIR:-$PWD/evidence}
  export CONTRACT=''${CONTRACT:-${writeText "contract.json" (builtins.toJSON contract)}}
  exec ${../.}/tests/smoke/run "$@"
''
