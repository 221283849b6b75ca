"""What may be wrong with a run, a file for each kind: writing one is all that it takes to add it."""
