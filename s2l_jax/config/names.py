"""What is said of a name that no field has."""

from collections.abc import Iterable

from s2l_jax.errors import nearest

# Names that fields had, for who comes back with an old config.
_RENAMED = {
    "within": "prefix_of",
    "first": "num_checkpoints",
    "cluster_whole": "cluster_small_sources",
    "match": "match_by",
    "keep": "save_params",
}


def unknown(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for a name, or a dotted one, that no field has; `.` where none is near."""
    group, _, last = name.rpartition(".")
    renamed = ".".join(filter(None, (group, _RENAMED.get(last, last))))
    return f"; did you mean {renamed!r}?" if renamed != name and renamed in known else nearest(name, known)
