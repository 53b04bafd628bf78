# Home Manager: the daemon as a service of this user. Podman and the user's ranges of ids are the system's part.
#   services.claw-runtime = { enable = true; images = [ … ]; workloads = [ ./openclaw.yaml ]; };
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.claw-runtime;
  # newuidmap is setuid: NixOS has it in /run/wrappers, other distributions in /usr/bin.
  searched = [
    "/run/wrappers/bin"
    "${pkgs.podman}/bin"
    "/usr/bin"
    "/bin"
  ];
in
{
  imports = [ (import ./service.nix self) ];

  config = lib.mkIf cfg.enable {
    home.packages = [ cfg.package ];

    systemd.user.services.claw-runtime = {
      inherit (cfg.unit) Unit;
      Service = cfg.unit.Service // {
        Environment = [ "PATH=${lib.concatStringsSep ":" searched}" ];
      };
      Install.WantedBy = [ "default.target" ];
    };
  };
}
