"""For which kind of device programs are made: the one that is here, or the one that a plan names."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_made_for: contextvars.ContextVar[str] = contextvars.ContextVar("made_for", default="")


def platform() -> str:
    """Of "cpu", "gpu" and "tpu" the one that sizes of tiles and chunks in compiled programs go by."""
    return _made_for.get() or jax.default_backend()


@contextlib.contextmanager
def made_for(name: str) -> Iterator[None]:
    """Within it, programs are traced for devices that this machine need not have."""
    token = _made_for.set(name)
    try:
        yield
    finally:
        _made_for.reset(token)
