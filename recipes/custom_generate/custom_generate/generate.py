"""Paceline as a decoding method of transformers; what it does is in the installed package."""

from paceline.accelerating import generate

__all__ = ["generate"]
