"""Export, the dependency-light runner, and sim-to-sim replay."""
