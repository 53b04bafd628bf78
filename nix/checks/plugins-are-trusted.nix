# The channel plugins are where the gateway trusts them, in the version of the gateway.
{
  claim,
  contractFile,
  image,
  root,
  template,
}:
claim {
  name = "plugins-are-trusted";
  setup = ": ${image.stream}";
  arguments = [
    "${root}"
    "${contractFile}"
    "${template}"
  ];
}
