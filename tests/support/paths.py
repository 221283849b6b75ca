"""Where the repository and the stored references are."""

import pathlib

TESTS = pathlib.Path(__file__).parents[1]
REPOSITORY = TESTS.parent
GOLDEN = TESTS / "golden"
SUPPORT = TESTS / "support"
