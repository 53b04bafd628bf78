# The package behind each tool that a contract may name. A contract with any other tool does not evaluate.
{
  lib,
  pkgs,
  nodejs,
}:
let
  # pip has to see what it installed below PYTHONUSERBASE, which a wrapped interpreter hides unless told otherwise.
  python = pkgs.python3.buildEnv.override {
    extraLibs = [
      pkgs.python3.pkgs.pip
      pkgs.python3.pkgs.requests
    ];
    permitUserSite = true;
  };

  known = {
    inherit (pkgs) curl jq uv gh;
    git = pkgs.gitMinimal;
    python3 = python;
    pip = python;
    requests = python;
    ffmpeg = pkgs.ffmpeg-headless;
    # Package sets rename and drop it: without it the image lacks one tool, and its own contract says so.
    gemini = pkgs.gemini-cli-bin or pkgs.gemini-cli or null;
    node = nodejs;
    npm = nodejs;
    rg = pkgs.ripgrep;
  };

  # What every shell script takes for granted.
  base = with pkgs; [
    bash
    coreutils
    diffutils
    findutils
    gawk
    gnugrep
    gnused
    gnutar
    gzip
  ];
in
{
  inherit python;

  # contract -> extra -> the contract without tools that this package set lacks.
  # extra: tool name -> package, for what an image adds; the application's own program is linked by the image.
  narrow =
    contract: extra:
    contract
    // {
      tools = lib.filterAttrs (name: _: (known // extra).${name} or true != null) contract.tools;
    };

  # contract -> extra -> packages, each once.
  packages =
    contract: extra:
    let
      package =
        name:
        (known // extra).${name}
          or (throw "contract.json: tools: nix/toolchain.nix knows no package for `${name}`");
      tools = lib.attrNames (removeAttrs contract.tools [ contract.application.name ]);
    in
    lib.unique (base ++ map package tools);
}
