"""One Flax NNX decoder for every model family, and its weights in and out of Hugging Face format."""
