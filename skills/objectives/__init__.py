"""Skill-discovery objectives."""
