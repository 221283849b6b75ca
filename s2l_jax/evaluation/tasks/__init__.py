"""What a model is asked: benchmarks, their rows, and the prompts made of them."""
