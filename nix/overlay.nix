# Everything of claw as one attribute set, `pkgs.claw`, so that it can be hung into any nixpkgs.
{
  self,
  nixpkgs,
  upstream,
}:
final: _prev:
let
  inherit (final) lib;
in
{
  claw = lib.makeScope final.newScope (claw: {
    inherit upstream;

    # Which source an image was made of. A tree with uncommitted changes has a hash and no revision.
    provenance = {
      revision = self.rev or "none";
      narHash = self.narHash or "none";
      sourceDate = self.lastModifiedDate or "none";
      nixpkgs = nixpkgs.rev or nixpkgs.narHash or "none";
    };

    # The contract's own major release of Node, for the gateway, its wrapper and the tenant's shells alike.
    nodejs = final."nodejs_${lib.versions.major (lib.importJSON ../images/openclaw-nix/contract.json).node}";

    # Programs whose licence is not free, each allowed by its name.
    unfree = import nixpkgs {
      inherit (final.stdenv.hostPlatform) system;
      config.allowUnfreePredicate =
        package:
        lib.elem (lib.getName package) [
          "1password-cli"
          "consul"
          "nomad"
          "terraform"
        ];
    };

    openclaw = claw.callPackage ./openclaw.nix { };
    toolchain = claw.callPackage ./toolchain.nix { };
    contractImage = claw.callPackage ./image.nix { };
    sbomOf = claw.callPackage ./sbom.nix { };

    claw-entrypoint = claw.callPackage ./entrypoint.nix { };
    claw-runtime = claw.callPackage ./runtime.nix { };

    openclaw-nix-image = claw.callPackage ../images/openclaw-nix { };
    openclaw-homelab-image = claw.callPackage ../images/openclaw-homelab { };
    nanoclaw-image = claw.callPackage ../images/nanoclaw { };

    load = claw.callPackage ./load.nix { };
    smoke = claw.callPackage ./smoke.nix { };
  });
}
