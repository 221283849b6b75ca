"""Devices: the mesh, how arrays are laid out on it, and runs of many processes."""
