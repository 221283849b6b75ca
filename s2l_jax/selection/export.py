"""The chosen rows as a file that a trainer reads."""

import json
import uuid
from collections.abc import Iterable
from typing import Any

from etils import epath


def write_subset(path: epath.PathLike, originals: Iterable[dict[str, Any]]) -> int:
    """Write the pool rows, with the fields they came with, as JSON lines; returns their number.

    Rows are written as they come, to a file beside `path` that takes its name at the end, so a
    reader never sees a part.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for original in originals:
                file.write(json.dumps(original) + "\n")
                count += 1
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return count
