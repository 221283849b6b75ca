"""What the theorem behind the selection claims, measured: `theory` puts its parts together."""
