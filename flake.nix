{
  description = "claw: reproducible images of single-tenant assistants, and the runtime that gives everyone their own";

  inputs.nix-openclaw.url = "github:openclaw/nix-openclaw/v2026.6.11";
  # One package set in the closure, and the very one that OpenClaw's packaging is tested with.
  inputs.nixpkgs.follows = "nix-openclaw/nixpkgs";

  outputs =
    { self, nixpkgs, nix-openclaw }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system}.extend self.overlays.default;
      packages = import ./nix/packages.nix pkgs;
      program = drv: {
        type = "app";
        program = "${drv}/bin/${drv.name}";
      };
    in
    {
      overlays.default = import ./nix/overlay.nix {
        inherit nixpkgs self;
        upstream = nix-openclaw.packages.${system};
      };

      packages.${system} = packages;
      # Images are Linux's: a Mac names the same attributes and builds them on a remote builder (docs/NIX.md).
      packages.aarch64-darwin = packages;

      apps.${system} = {
        load = program pkgs.claw.load;
        smoke = program pkgs.claw.smoke;
      };

      checks.${system} = pkgs.callPackage ./nix/checks { inherit self; };
      # Needs a virtual machine, so no part of `nix flake check`: nix build .#nixosTests.smoke
      legacyPackages.${system}.nixosTests = pkgs.callPackage ./nix/checks/nixos.nix { inherit self; };

      devShells.${system}.default = pkgs.callPackage ./nix/shell.nix { };
      formatter.${system} = pkgs.nixfmt-tree;

      nixosModules.default = import ./nix/modules/nixos.nix self;
      homeManagerModules.default = import ./nix/modules/home-manager.nix self;
    };
}
