"""Evaluation: held-out loss, generated answers, and whether they are right."""
