"""Loss trajectories: the pinned slice, the sweep over it, and the store of columns."""
