"""What selection methods go by beside losses: hidden states, gradients, queries."""
