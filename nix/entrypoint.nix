# The image's first process: standard library only, compiled once, since nobody can write beside it later.
{
  lib,
  runCommand,
  python3,
}:
runCommand "claw-entrypoint-${(lib.importTOML ../entrypoint/pyproject.toml).project.version}"
  {
    nativeBuildInputs = [ python3 ];
    source = ../entrypoint/claw_entrypoint;
    main = ../entrypoint/__main__.py;
    meta.description = "First process of a claw image";
  }
  ''
    mkdir -p $out/lib/claw/claw_entrypoint
    cp $main $out/lib/claw/__main__.py
    cp $source/*.py $out/lib/claw/claw_entrypoint/
    # Files in the store have no times, so that compiled Python must be checked by nothing.
    python3 -I -m compileall -q --invalidation-mode unchecked-hash -s $out/lib/claw -p /usr/lib/claw $out/lib/claw
  ''
