# As little of a package set as the claims need that look at files: the machine's own Python, and no compiler.
# nix-build bare.nix -A CLAIM --argstr python PATH --arg SUBJECT PATH, where the subject is what a test broke.
{
  lock ? ../../flake.lock,
  contract ? ../../images/openclaw-nix/contract.json,
  template ? ../../images/openclaw-nix/openclaw.json,
  entrypoint ? ../../entrypoint,
  python,
}:
let
  lib = import ./standin/nixpkgs/lib.nix;
  run =
    name: environment: text:
    derivation (
      removeAttrs environment [ "nativeBuildInputs" ]
      // {
        inherit name text;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [ "-euc" "PATH=${dirOf python}:/usr/bin:/bin; export PATH; eval \"$text\"" ];
      }
    );
  scope = lib.makeScope (extra: lib.callPackageWith ({ inherit lib; } // extra)) (_: {
    runCommand = run;
    python3 = dirOf python;
    zstd = "/usr";
    writeText = name: text: builtins.toFile name text;
  });
in
import ../../nix/checks {
  inherit lib;
  claw = scope;
  subjects = {
    inherit entrypoint lock template;
    image.contract = lib.importJSON contract;
  };
}
