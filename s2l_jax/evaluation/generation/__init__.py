"""How answers are made: token by token, many prompts at a time, and kept as they come."""
