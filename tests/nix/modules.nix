# Both modules evaluated with the real module system of nixpkgs' lib, over stubs of the options that they set.
{ library }:
let
  lib = import library;
  any = lib.mkOption {
    type = lib.types.anything;
    default = { };
  };
  pkgs = {
    podman = "/podman";
    stdenv.hostPlatform.system = "x86_64-linux";
    formats.toml = _: {
      type = lib.types.attrsOf lib.types.anything;
      generate = name: _: "/nix/store/${name}";
    };
  };
  package = {
    type = "derivation";
    name = "claw-runtime";
    outPath = "/claw-runtime";
  };
  self.packages.x86_64-linux.claw-runtime = package;
  evaluate =
    module: stubs: given:
    (lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        (import module self)
        { options = stubs; }
        { config.services.claw-runtime = { enable = true; } // given; }
      ];
    }).config;
  given = {
    settings.bucket = "file:///srv/claw";
    environmentFile = "/run/keys/claw.env";
    images = [ (package // { name = "image"; outPath = "/image.tar.zst"; }) ];
    workloads = [ "/etc/claw/my assistant.yaml" ];
  };
  nixos = evaluate ../../nix/modules/nixos.nix {
    virtualisation.podman.enable = lib.mkEnableOption "podman";
    users.users = any;
    environment.systemPackages = any;
    systemd.user.services = any;
  };
  home = evaluate ../../nix/modules/home-manager.nix {
    home.packages = any;
    systemd.user.services = any;
  };
  nixosConfig = nixos (given // { user = "keeper"; });
in
{
  nixos = {
    inherit (nixosConfig.systemd.user.services.claw-runtime) serviceConfig unitConfig wantedBy;
    user = nixosConfig.users.users.keeper;
    podman = nixosConfig.virtualisation.podman.enable;
  };
  home = (home given).systemd.user.services.claw-runtime;
  plain = (home { }).systemd.user.services.claw-runtime.Service;
  off = (evaluate ../../nix/modules/home-manager.nix {
    home.packages = any;
    systemd.user.services = any;
  } { enable = lib.mkForce false; }).systemd.user.services;
}
