{
  description = "Test double of openclaw/nix-openclaw: its attributes and its layout, out of OpenClaw from npm";

  inputs.nixpkgs.url = "path:../nixpkgs";
  # Made by ../machine.py and given with --override-input.
  inputs.packages = {
    url = "path:../packages";
    flake = false;
  };

  outputs =
    {
      self,
      nixpkgs,
      packages,
    }:
    let
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
      inherit (pkgs) lib;
      manifest = lib.importJSON "${packages}/node_modules/openclaw/package.json";
      inherit (manifest) version;
      nodejs = pkgs.nodejs_24;

      openclaw-gateway = pkgs.stdenv.mkDerivation {
        pname = "openclaw-gateway";
        inherit version;
        nativeBuildInputs = [ pkgs.makeWrapper ];
        env.NODE_BIN = "${nodejs}/bin/node";
        installPhase = ''
          root=$out/lib/openclaw
          mkdir -p $root/node_modules
          cp -r --no-preserve=ownership ${packages}/node_modules/openclaw/. $root/
          chmod -R u+w $root
          for package in ${packages}/node_modules/*; do
            case ''${package##*/} in openclaw) ;; *) cp -r -n --no-preserve=ownership $package $root/node_modules/ ;; esac
          done
          # Upstream's layout: manifests beside dist, and a second copy of the bundled extensions.
          chmod -R u+w $root
          mkdir -p $root/dist-runtime
          cp -r $root/dist/extensions $root/dist-runtime/extensions
          for file in $root/dist/extensions/*/openclaw.plugin.json; do
            install -D -m 644 $file $root/extensions/$(basename $(dirname $file))/openclaw.plugin.json
          done
          makeWrapper $NODE_BIN $out/bin/openclaw --add-flags $root/dist/index.js \
            --set-default OPENCLAW_NIX_MODE 1 --set-default OPENCLAW_DISABLE_PERSISTED_PLUGIN_REGISTRY 1
        '';
        meta.mainProgram = "openclaw";
      };

      plugin =
        id:
        let
          packageName = "@openclaw/${id}";
          modules = "${packages}/plugins/${id}/node_modules";
          drv = pkgs.stdenv.mkDerivation {
            pname = "openclaw-runtime-plugin-${id}";
            inherit version;
            env.OPENCLAW_GATEWAY_PACKAGE = "${openclaw-gateway}";
            # The package is the root, what npm put beside it goes below it, and its peer is the gateway.
            installPhase = ''
              cp -r --no-preserve=ownership ${modules}/${packageName} $out
              chmod -R u+w $out
              mkdir -p $out/node_modules
              for package in ${modules}/* ${modules}/@openclaw/*; do
                case ''${package#${modules}/} in openclaw | @openclaw | ${packageName}) ;;
                  *) [ -e $out/node_modules/''${package##*/} ] || cp -r --no-preserve=ownership $package $out/node_modules/ ;;
                esac
              done
              chmod -R u+w $out
              rm -rf $out/node_modules/openclaw
              ln -s $OPENCLAW_GATEWAY_PACKAGE/lib/openclaw $out/node_modules/openclaw
            '';
            passthru.openclawRuntimePlugin = {
              inherit id packageName;
              inherit (lib.importJSON "${modules}/${packageName}/package.json") version;
              source = "npm";
              loadPath = drv;
            };
          };
        in
        drv;

      ids = builtins.attrNames (builtins.readDir "${packages}/plugins");
    in
    {
      packages.x86_64-linux = {
        inherit openclaw-gateway;
        openclaw = openclaw-gateway;
        default = openclaw-gateway;
      }
      // builtins.listToAttrs (
        map (id: {
          name = "openclaw-runtime-plugin-${id}";
          value = plugin id;
        }) ids
      );
    };
}
