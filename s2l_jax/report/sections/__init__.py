"""The sections of the report, a file each: writing one is all that it takes to add it."""
