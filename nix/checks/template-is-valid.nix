# OpenClaw's own `config validate` accepts what the entrypoint makes of the template.
{
  claim,
  contractFile,
  entrypoint,
  image,
  root,
  template,
}:
claim {
  name = "template-is-valid";
  setup = ": ${image.stream}";
  arguments = [
    "${root}"
    "${contractFile}"
    "${template}"
    "${entrypoint}"
  ];
}
