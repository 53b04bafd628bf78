# NanoClaw with its state below /state and its containers through DOCKER_HOST; there is no Docker inside.
#
# A release whose dependencies are in a package-lock.json and that has a channel in its trunk: 1.2.0 leaves WhatsApp to
# a skill, 2.0 has pnpm's lock. The lock has a hash for every package but libsignal, which is a Git revision. Sources
# are fetched at evaluation, so this is the one package that does not evaluate without a network.
{
  lib,
  pkgs,
  buildNpmPackage,
  contractImage,
  docker-client,
  importNpmLock,
  python3,
  toolchain,
  nanoclawSource ? null,
  libsignalSource ? builtins.fetchGit {
    url = "https://github.com/whiskeysockets/libsignal-node";
    rev = "1c30d7d7e76a3b0aa120b04dc6a26f5a12dccf67";
    allRefs = true;
  },
}:
let
  promised = lib.importJSON ./contract.json;
  nodejs = pkgs."nodejs_${promised.node}";
  contract = promised // {
    node = nodejs.version;
  };
  inherit (contract.application) version revision;

  src =
    if nanoclawSource != null then
      nanoclawSource
    else
      builtins.fetchGit {
        url = "https://github.com/qwibitai/nanoclaw";
        ref = "refs/tags/v${version}";
        rev = revision;
      };

  nanoclaw = buildNpmPackage {
    pname = "nanoclaw";
    inherit version src nodejs;
    npmDeps = importNpmLock {
      npmRoot = src;
      packageSourceOverrides."node_modules/libsignal" = libsignalSource;
    };
    inherit (importNpmLock) npmConfigHook;
    # better-sqlite3 is compiled against the headers of this very Node.
    nativeBuildInputs = [ python3 ];
    env.HUSKY = "0";
    installPhase = ''
      runHook preInstall
      npm prune --omit=dev --ignore-scripts --no-audit
      mkdir -p $out/lib/nanoclaw
      cp -r dist node_modules package.json container groups $out/lib/nanoclaw/
      cp ${./start.mjs} $out/lib/nanoclaw/start.mjs
      runHook postInstall
    '';
    meta = {
      description = "Personal assistant whose agents run in containers of their own";
      homepage = "https://github.com/qwibitai/nanoclaw";
      license = lib.licenses.mit;
    };
  };
in
contractImage {
  inherit contract;
  template = ./nanoclaw.json;
  packages = toolchain.packages contract {
    docker = docker-client;
    node = nodejs;
  };
  links = {
    ${lib.head contract.exec.argv} = "${nodejs}/bin/node";
    "/opt/nanoclaw" = "${nanoclaw}/lib/nanoclaw";
  };
}
