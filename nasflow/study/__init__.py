"""Studies: the durable log of a run, and the runner that fills it."""
