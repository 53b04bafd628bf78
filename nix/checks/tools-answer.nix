# Each tool of the contract answers its version command, found as a tenant's shell would find it.
{
  claim,
  contractFile,
  image,
  root,
}:
claim {
  name = "tools-answer";
  setup = ": ${image.stream}";
  arguments = [
    "${root}"
    "${contractFile}"
  ];
}
