"""Worlds: physics backends, robots, tasks, randomisation and adapters."""
