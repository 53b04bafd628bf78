# The bill of materials of an image (CycloneDX): every store path of its closure with name, version and hash.
{
  python3,
  runCommand,
}:
{
  contract,
  # What the image was made of; their closure is the image's.
  roots,
  ...
}:
runCommand "${contract.name}-sbom.json"
  {
    __structuredAttrs = true;
    exportReferencesGraph.closure = roots;
    nativeBuildInputs = [ python3 ];
    application = [
      contract.name
      contract.application.version
    ];
  }
  ''
    python3 -B ${./sbom.py} .attrs.json "''${application[@]}" > "$out"
  ''
