"""Pools that come with the package, and readers of public data that become pools."""
