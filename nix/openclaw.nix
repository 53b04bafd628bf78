# The upstream gateway and channel plugins, adjusted for an image: the contract's boot tuning, one Node, one gateway.
{
  lib,
  upstream,
  nodejs,
}:
contract:
let
  module = lib.elemAt (lib.filter (lib.hasPrefix "/") contract.exec.argv) 1;
  # Where the image shows the package: what the contract names below it is found below lib/openclaw of the real one.
  place = dirOf module;
  below = path: "lib/openclaw${lib.removePrefix place path}";

  gateway = upstream.openclaw-gateway.overrideAttrs (old: {
    env = old.env // {
      NODE_BIN = "${nodejs}/bin/node";
    };
    # Upstream's installPhase runs no hooks and there is no fixupPhase, so what is added has to be appended.
    # Upstream lays the package out like a source checkout, which the gateway takes it for and complains about at every
    # start. These three together, or the bundled channels break; what npm ships has the channels in dist/ anyway.
    # Boot tuning: Node looks upwards for the package.json that tells a module's type (docs/IMAGE.md has the figures).
    installPhase = ''
      ${old.installPhase}
      rm -rf $out/lib/openclaw/{pnpm-workspace.yaml,dist-runtime,extensions}
      tuning=$out/${below contract.boot_tuning.path}
      [ ! -e "$tuning" ] || { echo "boot tuning: this release has its own $tuning" >&2; exit 1; }
      printf '%s\n' ${lib.escapeShellArg (builtins.toJSON contract.boot_tuning.json)} > "$tuning"
    '';
  });

  # A plugin links its openclaw peer. It must be this very gateway, or the image holds two of them.
  plugin =
    entry:
    let
      name = "openclaw-runtime-plugin-${entry.id}";
      original =
        upstream.${name}
          or (throw "contract.json: plugins: upstream has no ${name}; is the id `${entry.id}` right?");
      inherit (original.openclawRuntimePlugin) packageName version;
    in
    assert lib.assertMsg (packageName == entry.package)
      "contract.json: plugins: ${entry.id} is ${packageName} upstream, not ${entry.package}";
    assert lib.assertMsg (version == contract.application.version)
      "contract.json: application.version is ${contract.application.version}, upstream's ${entry.id} is ${version}";
    original.overrideAttrs (old: {
      env = old.env // {
        OPENCLAW_GATEWAY_PACKAGE = "${gateway}";
      };
    });
in
assert lib.assertMsg (gateway.version == contract.application.version)
  "contract.json: application.version is ${contract.application.version}, the flake's input has ${gateway.version}";
{
  inherit gateway;
  # Path in the image -> path in the store. Trust in a plugin holds because both ways to it end in one real path.
  links = {
    ${place} = "${gateway}/lib/openclaw";
  }
  // lib.listToAttrs (map (entry: lib.nameValuePair entry.path "${plugin entry}") contract.plugins.entries);
}
