# The bill of materials of an image (CycloneDX): every store path of its closure with name, version and hash.
{
  python3,
  runCommand,
  writeText,
}:
{
  contract,
  # What the image was made of, as paths in the store or below one; their closure is the image's.
  roots,
}:
let
  # Nix tells the closure of store paths, and a root may be a file in one.
  list = writeText "${contract.name}-roots" (toString roots);
in
runCommand "${contract.name}-sbom.json"
  {
    __structuredAttrs = true;
    exportReferencesGraph.closure = [ list ];
    leftOut = "${list}";
    nativeBuildInputs = [ python3 ];
    application = [
      contract.name
      contract.application.version
    ];
  }
  ''
    python3 -B ${./sbom.py} .attrs.json "''${application[@]}" > "$out"
  ''
