"""Turning the numbers of a run into tables, figures and one page to read."""
