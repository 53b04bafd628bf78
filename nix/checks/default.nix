# Claims about this flake, each a file of its name. A claim that fails says why in one line; `nix flake check` runs all.
{
  lib,
  claw,
  self,
  # What is claimed about; a test breaks one of them and looks at what is said.
  lock ? ../../flake.lock,
  entrypoint ? ../../entrypoint,
  image ? claw.openclaw-nix-image,
  template ? ../../images/openclaw-nix/openclaw.json,
}:
let
  inherit (image) contract;
  contractFile = claw.callPackage ({ writeText }: writeText "contract.json" (builtins.toJSON contract)) { };
  claim = claw.callPackage ./claim.nix { };
  about = {
    inherit
      claim
      contractFile
      entrypoint
      image
      lock
      template
      ;
    root = claw.callPackage ./root.nix { inherit image; };
  };
  names = [
    "archive-is-the-same-twice"
    "contract-is-understood"
    "entrypoint-installs-nothing"
    "entrypoint-tests-pass"
    "image-has-no-surprises"
    "image-keeps-contract"
    "lock-names-known-owners"
    "plugins-are-trusted"
    "sbom-has-its-shape"
    "template-holds-no-secret"
    "template-is-valid"
    "tools-answer"
  ];
  check =
    name:
    let
      file = import (./. + "/${name}.nix");
    in
    claw.callPackage file (builtins.intersectAttrs (builtins.functionArgs file) about);
in
lib.genAttrs names check
