# The package set of the test double. Same attribute names and calling conventions as nixpkgs; every program is Debian's
# or npm's, with interpreter and library path set to the store, so that an image of it needs no Debian.
{
  system ? "x86_64-linux",
  machine ? throw "the stand-in package set was imported without a machine (see machine.py)",
  overlays ? [ ],
  config ? { },
}:
let
  lib = import ./lib.nix;

  # stdenv.mkDerivation with the phases that claw and the stand-in for nix-openclaw use.
  make =
    final: arguments:
    let
      plain = removeAttrs arguments [ "env" "meta" "passthru" ];
      name = arguments.name or "${arguments.pname}-${arguments.version}";
      drv = derivation (
        plain
        // arguments.env or { }
        // {
          inherit name system;
          builder = "/bin/bash";
          args = [ "-e" ./builder.sh ];
        }
      );
      self =
        drv
        // arguments.passthru or { }
        // {
          inherit name;
          pname = lib.getName arguments;
          version = lib.getVersion arguments;
          passthru = arguments.passthru or { };
          meta = arguments.meta or { };
          override = _: self;
          overrideAttrs = change: make final (arguments // change ({ env = { }; } // arguments));
        };
    in
    self;

  set = final: {
    inherit lib config system;
    pkgs = final;
    newScope = extra: lib.callPackageWith (final // extra);
    callPackage = final.newScope { };
    extend = overlay: compose (overlays ++ [ overlay ]);
    stdenv = {
      mkDerivation = make final;
      hostPlatform = {
        inherit system;
        isLinux = true;
        isDarwin = false;
      };
    };
    stdenvNoCC = final.stdenv;
    runtimeShell = "${final.bash}/bin/bash";
  }
  // import ./writers.nix { inherit final lib make; }
  // import ./programs.nix { inherit final lib make machine; }
  // import ./images.nix { inherit final lib; }
  // import ./absent.nix { inherit final; };

  compose = layers: lib.fix (lib.foldl' (f: overlay: lib.extends overlay f) set layers);
in
compose overlays
