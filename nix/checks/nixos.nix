# A whole machine with the module: nix build .#nixosTests.smoke. It boots a virtual machine, so it is no flake check.
{
  self,
  testers,
}:
{
  smoke = testers.runNixOSTest {
    name = "claw-runtime";
    nodes.machine =
      { pkgs, ... }:
      let
        image = self.packages.${pkgs.stdenv.hostPlatform.system}.openclaw-nix-image;
        example = builtins.readFile ../../docs/examples/openclaw/workload.yaml;
        named = builtins.replaceStrings [ "localhost/openclaw-nix:dev" ] [ image.contract.image ] example;
      in
      {
        imports = [ self.nixosModules.default ];
        virtualisation = {
          memorySize = 4096;
          diskSize = 16384;
        };
        services.claw-runtime = {
          enable = true;
          images = [ image ];
          workloads = [ (pkgs.writeText "openclaw.yaml" named) ];
        };
      };
    testScript = ''
      machine.wait_for_unit("multi-user.target")
      machine.wait_until_succeeds("systemctl --user -M claw@ is-active claw-runtime", timeout=600)
      claw = "su - claw -c 'XDG_RUNTIME_DIR=/run/user/$(id -u claw) claw-runtime %s'"
      machine.wait_until_succeeds(claw % "claim alice", timeout=300)
      machine.succeed(claw % "status alice")
      machine.succeed(claw % "release alice")
    '';
  };
}
