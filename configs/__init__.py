"""Hydra config groups and their typed schema, as package data."""
