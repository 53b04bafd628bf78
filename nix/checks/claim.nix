# A claim as a build: its program ends with one line when the claim does not hold.
{
  lib,
  python3,
  runCommand,
}:
{
  name,
  # Words for programs/<name>.py; its file name has underscores.
  arguments,
  inputs ? [ ],
  # Shell, before the program.
  setup ? "",
}:
runCommand "claim-${name}" { nativeBuildInputs = [ python3 ] ++ inputs; } ''
  ${setup}
  python3 -B ${./programs}/${lib.replaceStrings [ "-" ] [ "_" ] name}.py ${lib.escapeShellArgs arguments}
  touch $out
''
