"""Renderers: what is to run, as text for other programs. No input and no output."""
