# The archive's configuration is the contract's, and what the contract names is in the image.
{
  claim,
  contractFile,
  image,
  zstd,
}:
claim {
  name = "image-keeps-contract";
  inputs = [ zstd ];
  setup = "zstd -q -d < ${image} > image.tar";
  arguments = [
    "image.tar"
    "${contractFile}"
  ];
}
