# The bill of materials is CycloneDX, and lists the very store paths that are in the image.
{
  claim,
  image,
  zstd,
}:
claim {
  name = "sbom-has-its-shape";
  inputs = [ zstd ];
  setup = "zstd -q -d < ${image} > image.tar";
  arguments = [
    "${image.sbom}"
    "image.tar"
  ];
}
