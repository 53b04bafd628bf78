{
  description = "Test double of nixpkgs: the few attributes that claw's images use, out of a Debian root";

  # Made by ../machine.py and given with --override-input: a Debian root with Node and tools below opt/.
  inputs.machine = {
    url = "path:../machine";
    flake = false;
  };

  outputs =
    { self, machine }:
    {
      lib = import ./lib.nix;
      legacyPackages.x86_64-linux = import ./. { inherit machine; };
      inherit (self.sourceInfo) narHash;
      elf = ./elf.sh;
    };
}
