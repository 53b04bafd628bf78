# No setuid file, no open directory but the contract's, no credential, and the store's one time everywhere.
{
  claim,
  contractFile,
  image,
  zstd,
}:
claim {
  name = "image-has-no-surprises";
  inputs = [ zstd ];
  setup = "zstd -q -d < ${image} > image.tar";
  arguments = [
    "image.tar"
    "${contractFile}"
    "1"
  ];
}
