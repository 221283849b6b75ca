"""Child processes with as little reach as calculation needs; docs/design/security.md says what that is.

What is in this package runs in such a child, or in the warm one that forks it.
"""
