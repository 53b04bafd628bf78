# One image out of one contract: every value comes from there, files and programs from the store.
{
  lib,
  bash,
  cacert,
  coreutils,
  dockerTools,
  python3,
  runCommand,
  writeText,
  claw-entrypoint,
  provenance,
  sbomOf,
}:
{
  # The image's own contract: what it promises with this package set.
  contract,
  # Configuration template, a file.
  template,
  # Packages whose bin/ becomes the image's /usr/bin; of two equal names the first wins.
  packages,
  # Path in the image -> path in the store, or relative to the link.
  links ? { },
  # More attributes of the result.
  passthru ? { },
  tag ? "nix",
  maxLayers ? 80,
}:
let
  inherit (lib) concatStringsSep escapeShellArg mapAttrsToList;

  name = lib.head (lib.splitString ":" contract.image);
  stated = contract // {
    image = "${name}:${tag}";
  };
  stateless = concatStringsSep " " (map (path: ".${path}") (lib.attrNames contract.volumes));
  writable = concatStringsSep " " (map (path: ".${path}") contract.writable);

  everyLink = links // {
    "/bin" = "usr/bin";
    "/sbin" = "usr/bin";
    "/usr/sbin" = "bin";
    "/usr/lib/claw" = "${claw-entrypoint}/lib/claw";
    "/etc/ssl/certs/ca-certificates.crt" = "${cacert}/etc/ssl/certs/ca-bundle.crt";
  };

  # A link for each program, in one place: whole packages as `contents` would cost a link for each of their files.
  programs = runCommand "${contract.name}-programs" { } ''
    mkdir -p $out
    for package in ${toString packages}; do
      for program in "$package"/bin/*; do
        link=$out/''${program##*/}
        [ -e "$link" ] || [ -L "$link" ] || ln -s "$program" "$link"
      done
    done
    [ -e $out/env ] && [ -e $out/sh ]
  '';

  sbom = sbomOf {
    contract = stated;
    roots = packages ++ lib.filter (lib.hasPrefix builtins.storeDir) (lib.attrValues everyLink);
  };

  image = dockerTools.buildLayeredImage {
    inherit name tag maxLayers;
    # Podman 4.3 cannot read a gzipped archive.
    compressor = "zstd";
    contents = [ ];
    extraCommands = ''
      mkdir -p etc/claw usr/bin usr/local/bin ${stateless}
      chmod 1777 ${writable}
      cp -P ${programs}/* usr/bin/
      # Regular files: some runtimes refuse links out of the image's root for these.
      echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
      echo 'root:x:0:' > etc/group
      echo 'hosts: files dns' > etc/nsswitch.conf
      cp ${writeText "contract.json" (builtins.toJSON stated)} etc/claw/contract.json
      cp ${template} .${contract.template.source}
      cp ${sbom} etc/claw/sbom.json
      chmod 644 etc/claw/*
    ''
    + concatStringsSep "" (
      mapAttrsToList (path: target: ''
        mkdir -p ".$(dirname ${escapeShellArg path})"
        ln -s ${escapeShellArg target} .${escapeShellArg path}
      '') everyLink
    );
    config = {
      # The interpreter itself: a wrapper would cost every start one more program.
      Entrypoint = [
        "${python3}/bin/python3"
        "-I"
        "-S"
        "${claw-entrypoint}/lib/claw/__main__.py"
      ];
      Env = mapAttrsToList (key: value: "${key}=${value}") contract.environment;
      ExposedPorts = lib.mapAttrs' (_: port: lib.nameValuePair "${toString port}/tcp" { }) contract.ports;
      StopSignal = contract.stop.signal;
      Labels = {
        "org.opencontainers.image.title" = contract.name;
        "org.opencontainers.image.version" = contract.application.version;
        "org.opencontainers.image.revision" = provenance.revision;
        "io.claw.contract" = builtins.toJSON stated;
        "io.claw.source.nar-hash" = provenance.narHash;
        "io.claw.source.date" = provenance.sourceDate;
        "io.claw.nixpkgs.revision" = provenance.nixpkgs;
      };
    };
  };
in
lib.extendDerivation true (
  passthru
  // {
    contract = stated;
    inherit (image.passthru) stream;
    inherit sbom;
  }
) image
