# The entrypoint's own tests, with the interpreter that it runs with in the image.
{
  entrypoint,
  python3,
  runCommand,
}:
let
  python = python3.withPackages (packages: [
    packages.pytest
    packages.hypothesis
  ]);
in
runCommand "claim-entrypoint-tests-pass" { nativeBuildInputs = [ python ]; } ''
  mkdir -p tree/tests
  cp -r --no-preserve=mode ${entrypoint} tree/entrypoint
  cp -r --no-preserve=mode ${../../images} tree/images
  cp -r --no-preserve=mode ${../../tests/fakes} tree/tests/fakes
  cp -r --no-preserve=mode ${../../tests/unit} tree/tests/unit
  cp ${../../pyproject.toml} tree/pyproject.toml
  cd tree
  export HOME=$TMPDIR PYTHONPATH=$PWD/entrypoint PYTHONDONTWRITEBYTECODE=1
  python -m pytest -q -p no:cacheprovider tests/unit/entrypoint
  touch $out
''
