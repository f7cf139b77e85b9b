"""Franka Panda on a table: reach, push, place, stack, a drawer, a scene with a lock, and a cube to discover skills."""
