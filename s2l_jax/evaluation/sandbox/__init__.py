"""A child process with as little reach as the machine allows; docs/security.md says what holds where.

What is in this package runs in that child, and imports nothing but the standard library until it is confined.
"""
