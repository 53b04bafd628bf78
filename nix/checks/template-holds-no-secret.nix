# The configuration template has placeholders where credentials go.
{
  claim,
  contractFile,
  template,
}:
claim {
  name = "template-holds-no-secret";
  arguments = [
    "${template}"
    "${contractFile}"
  ];
}
