# A second build of the archive has the same bytes. For all that it is made of: `nix build .#openclaw-nix-image --rebuild`.
{ claim, image }:
claim {
  name = "archive-is-the-same-twice";
  arguments = [
    "${image}"
    "${image.overrideAttrs (_: { claw_build = "second"; })}"
  ];
}
