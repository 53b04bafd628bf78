# The OpenClaw image. An image that adds something passes its own promise and the packages of its added tools.
{
  lib,
  claw-entrypoint,
  contractImage,
  nodejs,
  openclaw,
  python3,
  runCommand,
  toolchain,
  writeText,
  promised ? lib.importJSON ./contract.json,
  template ? ./openclaw.json,
  extraTools ? { },
}:
let
  # Promised for this package set: its own release of Node, and no tool that it lacks. How the Containerfile builds is
  # none of this image's business.
  contract = removeAttrs (toolchain.narrow promised extraTools) [ "build" ] // {
    node = nodejs.version;
  };
  paths = lib.filter (lib.hasPrefix "/");
  program = lib.elemAt (paths contract.exec.argv);
  parts = openclaw contract;
  started = parts.links // {
    ${program 0} = "${nodejs}/bin/node";
    "/opt/claw/lookups.mjs" = "${./lookups.mjs}";
    "/opt/claw/extensions.mjs" = "${./extensions.mjs}";
  };

  # What the waiter loads ahead, found by running this very gateway once.
  modules = runCommand "${contract.name}-modules.list" { nativeBuildInputs = [ python3 ]; } ''
    python3 -I ${./steps}/list_modules.py ${writeText "contract.json" (builtins.toJSON contract)} ${template} \
      ${claw-entrypoint}/lib/claw ${
        lib.escapeShellArgs (lib.mapAttrsToList (path: target: "${path}=${target}") started)
      } > $out
  '';
in
contractImage {
  inherit contract template;
  passthru = { inherit (parts) gateway; };
  packages = toolchain.packages contract extraTools;
  links = started // {
    ${lib.elemAt (paths contract.prewarm.argv) 1} = "${./prewarm.mjs}";
    ${contract.prewarm.modules} = "${modules}";
    ${contract.exec.environment.SHELL} = "${./tool-shell}";
    # The module and not upstream's wrapper: that would set variables that the contract does not know.
    "/usr/local/bin/${contract.application.name}" = program 1;
  };
}
