# What `nix build .#NAME` can name, out of a package set with the overlay.
pkgs: {
  inherit (pkgs.claw)
    claw-entrypoint
    claw-runtime
    nanoclaw-image
    openclaw-homelab-image
    openclaw-nix-image
    ;
  openclaw-nix-image-stream = pkgs.claw.openclaw-nix-image.stream;
  openclaw-gateway = pkgs.claw.openclaw-nix-image.gateway;
  default = pkgs.claw.openclaw-nix-image;
}
