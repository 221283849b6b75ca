"""Training: loss, optimiser, the sharded step, checkpoints and the loop that ties them."""
