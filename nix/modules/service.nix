# What NixOS and Home Manager have in common: the options, and the unit that runs the daemon for a user.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkEnableOption mkOption types;
  cfg = config.services.claw-runtime;
  settings = pkgs.formats.toml { };
in
{
  options.services.claw-runtime = {
    enable = mkEnableOption "claw-runtime, which gives every tenant a container of their own";

    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.claw-runtime;
      defaultText = lib.literalExpression "claw.packages.\${system}.claw-runtime";
      description = "The package with `bin/claw-runtime`.";
    };

    workloads = mkOption {
      type = types.listOf types.path;
      default = [ ];
      example = lib.literalExpression "[ ./openclaw.yaml ]";
      description = "Workload files whose pools are kept full; none means every file of the workloads directory.";
    };

    images = mkOption {
      type = types.listOf types.package;
      default = [ ];
      example = lib.literalExpression "[ claw.packages.x86_64-linux.openclaw-nix-image ]";
      description = "Image archives that are loaded before the daemon starts, and mapped for the user.";
    };

    settings = mkOption {
      inherit (settings) type;
      default = { };
      example = {
        bucket = "s3://states/claw";
        endpoint = "https://s3.example.org";
      };
      description = "Settings of docs/CLI.md by their names. They end up in the store, where everybody can read them: no keys.";
    };

    environmentFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/keys/claw.env";
      description = "File of `NAME=value` lines with what nobody else may read, such as `CLAW_S3_SECRET_KEY`.";
    };

    unit = mkOption {
      type = types.attrs;
      internal = true;
      readOnly = true;
      description = "Sections of the systemd unit, for the module that installs it.";
    };
  };

  config.services.claw-runtime.unit = {
    Unit = {
      Description = "claw-runtime";
      # A start that fails at once is tried for a minute, not for ever.
      StartLimitIntervalSec = 120;
      StartLimitBurst = 12;
    };
    Service = {
      ExecStartPre = map (image: "${cfg.package}/bin/claw-runtime image load ${image}") cfg.images;
      ExecStart = lib.escapeShellArgs (
        [ "${cfg.package}/bin/claw-runtime" ]
        ++ lib.optionals (cfg.settings != { }) [
          "--config"
          "${settings.generate "claw-runtime.toml" cfg.settings}"
        ]
        ++ [ "up" ]
        ++ map toString cfg.workloads
      );
      Restart = "on-failure";
      RestartSec = 5;
      # Tenants' containers go on running when the daemon ends; the next one takes them over.
      KillMode = "process";
      TimeoutStopSec = 60;
      # The first load of an image copies its layers once for this user.
      TimeoutStartSec = 600;
      # Limits of containers need control groups of the user's own.
      Delegate = true;
    }
    // lib.optionalAttrs (cfg.environmentFile != null) { EnvironmentFile = cfg.environmentFile; };
  };
}
