"""The engine adapter: rootless Podman behind `ports.Engine`, and the image commands that its API lacks."""
