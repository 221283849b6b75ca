"""The methods that S2L is compared with, a file for each idea."""
