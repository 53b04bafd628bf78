# The daemon and the command line, with what they need and nothing of the host's.
{
  lib,
  python3Packages,
}:
let
  inherit (python3Packages) buildPythonApplication buildPythonPackage setuptools;
  project = folder: (lib.importTOML "${folder}/pyproject.toml").project;

  entrypoint = buildPythonPackage {
    pname = "claw-entrypoint";
    inherit (project ../entrypoint) version;
    pyproject = true;
    src = ../entrypoint;
    build-system = [ setuptools ];
    pythonImportsCheck = [ "claw_entrypoint.contract" ];
  };
in
buildPythonApplication {
  pname = "claw-runtime";
  inherit (project ../runtime) version;
  pyproject = true;
  src = ../runtime;
  build-system = [ setuptools ];
  dependencies = [ entrypoint ] ++ (with python3Packages; [
    boto3
    click
    cryptography
    fastapi
    httptools
    jinja2
    pathspec
    podman
    pydantic
    pyyaml
    structlog
    uvicorn
    zstandard
  ]);
  pythonImportsCheck = [ "claw_runtime.cli.main" ];
  meta = {
    inherit (project ../runtime) description;
    license = lib.licenses.asl20;
    mainProgram = "claw-runtime";
  };
}
