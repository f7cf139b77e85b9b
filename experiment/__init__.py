"""Everything around a training run: run directory, checkpoints, trackers, console, video, plots, report.

Modules import their heavy libraries (jax, orbax, mujoco, matplotlib, rich) when first used, so importing is cheap.
"""
