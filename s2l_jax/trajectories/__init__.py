"""Loss trajectories: the packed dataset, the sweep over it, and the store of columns."""
