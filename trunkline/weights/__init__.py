"""Publish and fetch weights under a version. Owns no optimiser."""
