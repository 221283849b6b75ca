"""k-means in JAX: the estimator, its streaming form, and how clusterings compare.

Importing this package imports nothing heavy: its names, in __init__.pyi, are loaded when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
