# The OpenClaw image. An image that adds something passes its own promise and the packages of its added tools.
{
  lib,
  contractImage,
  nodejs,
  openclaw,
  toolchain,
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
  program = lib.elemAt (lib.filter (lib.hasPrefix "/") contract.exec.argv);
  parts = openclaw contract;
in
contractImage {
  inherit contract template;
  passthru = { inherit (parts) gateway; };
  packages = toolchain.packages contract extraTools;
  links = parts.links // {
    ${program 0} = "${nodejs}/bin/node";
    # The module and not upstream's wrapper: that would set variables that the contract does not know.
    "/usr/local/bin/${contract.application.name}" = program 1;
  };
}
