# dockerTools with the arguments that claw uses: a layer for each of the most referred-to store paths, one for the rest,
# one for the image's own files.
{ final, lib }:
let
  own =
    { name, contents, extraCommands }:
    assert lib.assertMsg (contents == [ ]) "dockerTools of the stand-in takes no contents";
    final.runCommand "${baseNameOf name}-own-layer" { inherit extraCommands; } ''
      mkdir root $out
      chmod 755 root
      (cd root; eval "$extraCommands")
      tar -C root --sort=name --numeric-owner --owner=0 --group=0 --mtime=@1 --format=gnu -cf $out/layer.tar .
    '';

  streamLayeredImage =
    {
      name,
      tag,
      maxLayers ? 100,
      contents ? [ ],
      extraCommands ? "",
      config ? { },
    }:
    let
      layer = own { inherit name contents extraCommands; };
      # Only to name what the configuration refers to: the image has no file of it.
      configuration = final.writeText "config" (builtins.toJSON config);
      plan = final.runCommand "${baseNameOf name}-plan.json" {
        __structuredAttrs = true;
        exportReferencesGraph.graph = [
          layer
          configuration
        ];
        inherit config maxLayers;
        own = "${layer}";
        named = "${configuration}";
        reference = "${name}:${tag}";
      } "cp .attrs.json $out";
    in
    final.writeShellScript "stream-${baseNameOf name}" "exec /usr/bin/python3 -I ${./layers.py} ${plan}\n"
    // {
      imageName = name;
      imageTag = tag;
    };

  buildLayeredImage =
    { compressor, ... }@arguments:
    assert lib.assertMsg (compressor == "zstd") "dockerTools of the stand-in compresses with zstd";
    let
      stream = streamLayeredImage (removeAttrs arguments [ "compressor" ]);
    in
    final.runCommand "${baseNameOf arguments.name}.tar.zst" {
      passthru = {
        inherit stream;
        inherit (stream) imageName imageTag;
      };
    } "${stream} | zstd --quiet --threads=2 > $out";
in
{
  dockerTools = { inherit buildLayeredImage streamLayeredImage; };
}
