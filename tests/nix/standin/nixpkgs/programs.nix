# Programs out of the Debian root `machine`, one package for each name that nixpkgs would give them.
{
  final,
  lib,
  make,
  machine,
}:
let
  versions = lib.importJSON "${machine}/versions.json";
  inventory = versions.debian;
  upstreamVersion =
    package:
    let
      parts = builtins.match "([0-9]+:)?([^-+~]+).*" inventory.${package}.version;
    in
    lib.elemAt parts 1;

  # A package whose builder knows how to adopt Debian's programs.
  package =
    pname: version: script:
    make final {
      inherit pname version;
      machine = "${machine}";
      glibc = "${final.glibc}";
      meta.mainProgram = pname;
      buildCommand = ''
        source ${./elf.sh}
        ${script}
        [ ! -d $out/lib ] || rmdir --ignore-fail-on-non-empty $out/lib
      '';
    };

  # Every program of a Debian package of the same meaning.
  debian =
    name: script:
    package name (upstreamVersion name) ''
      adopt_all ${toString inventory.${name}.programs}
      ${script}
    '';

  # A copy of the interpreter, which finds its standard library and these other libraries by its own place.
  pythonWith =
    names: folder: script:
    package "python3-env" (upstreamVersion "python3.11") ''
      # ${toString names}
      library=$out/lib/python3/dist-packages
      mkdir -p $out/bin $library
      cp -P ${final.python3}/bin/* $out/bin/
      ln -s python3 $out/bin/python
      ln -s ${final.python3}/lib/python3.11 $out/lib/python3.11
      tar -C $machine/${folder} -c --exclude=__pycache__ . | tar -x --no-same-owner -C $library
      PYTHONHASHSEED=0 $out/bin/python3 -I -S -m compileall -q --invalidation-mode unchecked-hash $library
      ${script}
    '';

  inherit (versions) pins;
in
{
  glibc = make final {
    pname = "glibc";
    version = upstreamVersion "libc6";
    buildCommand = ''
      mkdir -p $out/lib
      for name in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libmvec.so.1 libdl.so.2 libpthread.so.0 librt.so.1 \
        libresolv.so.2 libutil.so.1 libanl.so.1 libnss_dns.so.2 libnss_files.so.2 libnss_compat.so.2 libgcc_s.so.1 \
        libstdc++.so.6 libatomic.so.1; do
        cp -L ${machine}/usr/lib/x86_64-linux-gnu/$name $out/lib/
      done
      chmod 755 $out/lib/ld-linux-x86-64.so.2
    '';
  };

  bash = debian "bash" "ln -s bash $out/bin/sh";
  coreutils = debian "coreutils" "";
  curl = debian "curl" "";
  diffutils = debian "diffutils" "";
  ffmpeg-headless = debian "ffmpeg" "";
  findutils = debian "findutils" "";
  gawk = debian "gawk" "ln -s gawk $out/bin/awk";
  gh = package "gh" (upstreamVersion "gh") ''
    source ${final.makeWrapper}/nix-support/setup-hook
    adopt_loaded $out/bin/gh $machine/usr/bin/gh
  '';
  gnugrep = debian "grep" "";
  gnused = debian "sed" "";
  gnutar = debian "tar" "";
  gzip = debian "gzip" "";
  jq = debian "jq" "";
  procps = debian "procps" "";
  ripgrep = debian "ripgrep" "";

  gitMinimal = package "git" (upstreamVersion "git") ''
    source ${final.makeWrapper}/nix-support/setup-hook
    core=$out/libexec/git-core
    mkdir -p $core $out/share
    for source in $machine/usr/lib/git-core/*; do
      name=''${source##*/}
      if [ -L $source ]; then cp -P $source $core/; elif [ -f $source ]; then adopt $core/$name $source; fi
    done
    ln -sf ../../bin/.git $core/git
    adopt $out/bin/.git $machine/usr/bin/git
    cp -r --no-preserve=ownership $machine/usr/share/git-core/templates $out/share/templates
    makeWrapper $out/bin/.git $out/bin/git --set GIT_EXEC_PATH $core --set-default GIT_TEMPLATE_DIR $out/share/templates
  '';

  python3 =
    package "python3" (upstreamVersion "python3.11") ''
      lib=$out/lib/python3.11
      mkdir -p $lib
      tar -C $machine/usr/lib/python3.11 -c --exclude=__pycache__ --exclude=./test --exclude=./idlelib \
        --exclude=./lib2to3 --exclude=./ensurepip --exclude=./pydoc_data --exclude='./config-*' \
        --exclude=EXTERNALLY-MANAGED --exclude=sitecustomize.py . | tar -x --no-same-owner -C $lib
      adopt $out/bin/python3.11 $machine/usr/bin/python3.11 $lib/lib-dynload/*.so
      ln -s python3.11 $out/bin/python3
      PYTHONHASHSEED=0 $out/bin/python3 -I -S -m compileall -q --invalidation-mode unchecked-hash $lib
    ''
    // {
      pkgs = lib.genAttrs [ "hypothesis" "pip" "pytest" "requests" ] (name: "python3-${name}");
      buildEnv.override =
        { extraLibs, permitUserSite ? false }:
        assert lib.assertMsg permitUserSite "the stand-in's interpreter sees a user's own packages";
        pythonWith extraLibs "usr/lib/python3/dist-packages" ''
          for name in pip pip3; do
            { echo "#!$out/bin/python3"; tail -n +2 $machine/usr/bin/$name; } > $out/bin/$name
            chmod 755 $out/bin/$name
          done
        '';
      withPackages = select: pythonWith (select final.python3.pkgs) "opt/tests" "";
    };

  "nodejs_${lib.versions.major pins.node}" = package "nodejs" pins.node ''
    adopt $out/bin/node $machine/opt/node/bin/node
    mkdir -p $out/lib
    cp -r --no-preserve=ownership $machine/opt/npm/node_modules $out/lib/
    chmod -R u+w $out/lib
    ln -s ../lib/node_modules/npm/bin/npm-cli.js $out/bin/npm
    ln -s ../lib/node_modules/npm/bin/npx-cli.js $out/bin/npx
  '';

  gemini-cli-bin = package "gemini-cli" pins.gemini ''
    mkdir -p $out/bin $out/lib
    cp -r --no-preserve=ownership $machine/opt/gemini/node_modules $out/lib/
    chmod -R u+w $out/lib
    ln -s ../lib/node_modules/.bin/gemini $out/bin/gemini
  '';

  uv = package "uv" pins.uv ''
    adopt $out/bin/uv $machine/opt/uv/bin/uv
    adopt $out/bin/uvx $machine/opt/uv/bin/uvx
  '';

  cacert = final.runCommand "cacert" { } ''
    mkdir -p $out/etc/ssl/certs
    cp -L ${machine}/etc/ssl/certs/ca-certificates.crt $out/etc/ssl/certs/ca-bundle.crt
  '';
}
