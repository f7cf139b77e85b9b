"""Robots and tasks, one small file per family."""
