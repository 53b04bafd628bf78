# The OpenClaw image with what the keeper of a small cluster works with. Its contract is that image's and additions.json.
{
  lib,
  callPackage,
  dig,
  openssh,
  unfree,
}:
let
  base = lib.importJSON ../openclaw-nix/contract.json;
  additions = lib.importJSON ./additions.json;
in
callPackage ../openclaw-nix {
  promised =
    base
    // additions
    // {
      environment = base.environment // additions.environment;
      tools = base.tools // additions.tools;
    };
  extraTools = {
    inherit (unfree) consul nomad terraform;
    inherit dig;
    op = unfree._1password-cli;
    ssh = openssh;
  };
}
