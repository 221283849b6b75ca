"""The work behind features: programs on devices, and arrays that are made in chunks."""
