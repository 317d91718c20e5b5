"""Fledge: agents and models that learn to adapt, and pictures of how fast they do."""

__version__ = "0.1.0"
