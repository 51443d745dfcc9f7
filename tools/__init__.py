"""Checks of this repository that no public tool makes. Not part of the package."""
