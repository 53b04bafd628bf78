"""claw-runtime: many people's private assistants on one Linux machine."""

__version__ = "0.1.0"
