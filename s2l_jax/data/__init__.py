"""From the rows of a pool to token batches."""
