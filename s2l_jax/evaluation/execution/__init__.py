"""What runs in child processes: the programs that models write, and comparisons that may hang."""
