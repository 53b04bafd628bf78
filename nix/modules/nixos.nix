# NixOS: Podman for an unprivileged user, and the daemon as that user's service, also when nobody is logged in.
#   services.claw-runtime = { enable = true; user = "claw"; images = [ … ]; workloads = [ ./openclaw.yaml ]; };
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.claw-runtime;
in
{
  imports = [ (import ./service.nix self) ];

  options.services.claw-runtime.user = lib.mkOption {
    type = lib.types.str;
    default = "claw";
    description = "The unprivileged user whose containers and states these are; made unless it is there.";
  };

  config = lib.mkIf cfg.enable {
    virtualisation.podman.enable = true;

    users.users.${cfg.user} = {
      isNormalUser = lib.mkDefault true;
      # Without ranges there is no user namespace for a container, without lingering no service before a login.
      autoSubUidGidRange = lib.mkDefault true;
      linger = lib.mkDefault true;
    };

    environment.systemPackages = [ cfg.package ];

    systemd.user.services.claw-runtime = {
      wantedBy = [ "default.target" ];
      # newuidmap and newgidmap are setuid wrappers, which no package has.
      path = [
        "/run/wrappers"
        pkgs.podman
      ];
      unitConfig = cfg.unit.Unit // {
        ConditionUser = cfg.user;
      };
      serviceConfig = cfg.unit.Service;
    };
  };
}
