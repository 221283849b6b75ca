"""The tests, in folders named as the package's are."""
