# Every input of flake.lock is pinned by hash and comes from an owner of this list. A new owner is added here.
{ claim, lock }:
claim {
  name = "lock-names-known-owners";
  arguments = [
    "${lock}"
    "NixOS"
    "nix-community" # home-manager, of nix-openclaw
    "nix-systems" # systems, of nix-openclaw
    "numtide" # flake-utils, of nix-openclaw
    "openclaw"
    "tobi" # qmd, of nix-openclaw
  ];
}
