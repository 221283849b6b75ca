"""A file for each benchmark; `tasks.benchmark` has what such a file enters."""
