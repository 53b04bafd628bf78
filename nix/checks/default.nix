# Claims about this flake, each a file of its name. A claim that fails says why in one line; `nix flake check` runs all.
{
  lib,
  claw,
  # What is claimed about, where it is not this repository's; a test breaks one and looks at what is said.
  subjects ? { },
  ...
}:
let
  about = {
    lock = ../../flake.lock;
    entrypoint = ../../entrypoint;
    image = claw.openclaw-nix-image;
    template = ../../images/openclaw-nix/openclaw.json;
  }
  // subjects
  // {
    claim = claw.callPackage ./claim.nix { };
    contractFile = claw.callPackage ({ writeText }: writeText "contract.json" contract) { };
    root = claw.callPackage ./root.nix { inherit (about) image; };
  };
  contract = builtins.toJSON about.image.contract;
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
