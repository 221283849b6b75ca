"""The embedded base checkpoints that the quickstart starts from, in Hugging Face layout."""

import pathlib


def base_checkpoint(name: str) -> str:
    """The directory of the embedded "proxy" or "target"."""
    return str(pathlib.Path(__file__).parent / name)
