# Trivial builders.
{
  final,
  lib,
  make,
}:
rec {
  runCommand =
    name: arguments: buildCommand:
    make final (arguments // { inherit name buildCommand; });
  runCommandLocal = runCommand;

  writeTextFile =
    {
      name,
      text,
      executable ? false,
      destination ? "",
    }:
    runCommand name
      {
        inherit text;
        passAsFile = [ "text" ];
      }
      ''
        mkdir -p "$(dirname "$out${destination}")"
        install -m ${if executable then "755" else "644"} "$textPath" "$out${destination}"
      '';
  writeText = name: text: writeTextFile { inherit name text; };
  writeShellScript =
    name: text:
    writeTextFile {
      inherit name;
      executable = true;
      text = "#!${final.runtimeShell}\n${text}";
    };
  writeShellScriptBin =
    name: text:
    writeTextFile {
      inherit name;
      executable = true;
      destination = "/bin/${name}";
      text = "#!${final.runtimeShell}\n${text}";
    };

  makeWrapper = runCommand "make-wrapper" { } ''
    mkdir -p $out/nix-support
    { echo "shell=${final.bash}/bin/sh"; cat ${./make-wrapper.sh}; } > $out/nix-support/setup-hook
  '';
  # Builders use the host's own; so does whoever asks for it.
  zstd = runCommand "zstd" { } "mkdir -p $out/bin; ln -s /usr/bin/zstd $out/bin/zstd";
  mkShellNoCC = { packages }: runCommand "shell" { inherit packages; } "mkdir $out";
}
