"""The Arrow types of rows' fields, and which rows have none: what a Parquet file of them can hold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_BATCH = 1024


class NoArrowType(ValueError):
    """Why some rows cannot be put into one Parquet file."""


class ArrowTypes:
    """Gathers the types of fields from rows, some at a time; a field that a row lacks is null.

    Args:
      names: of columns that stand beside the rows' own, which may have none of these names.
    """

    def __init__(self, names: Iterable[str]):
        self._reserved = frozenset(names)
        self._schemas: dict[Any, None] = {}  # in the order they were met
        self._rows: list[tuple[str, Mapping[str, Any]]] = []
        self._problem = ""

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        """Take in a row; after the first problem they are passed over."""
        if not self._problem:
            self._rows.append((place, row))
            if len(self._rows) == _BATCH:
                self._take()

    def problem(self) -> str:
        """What is wrong with the rows so far, naming field and row; empty if nothing is."""
        try:
            self.schema()
        except NoArrowType as error:
            self._problem = str(error)
        return self._problem

    def schema(self) -> Any:
        """The types of all fields of the rows so far; fields that none of them fills are text.

        Raises:
          NoArrowType: there is no such schema, or Parquet cannot have it.
        """
        import pyarrow as pa

        self._take()
        if self._problem:
            raise NoArrowType(self._problem)
        try:
            schema = pa.unify_schemas(list(self._schemas), promote_options="permissive")
        except pa.ArrowException as error:
            raise NoArrowType(f"a field's values have no common type in Parquet ({error})") from None
        fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in schema]
        for field in fields:
            if _has_empty_struct(field.type):
                raise NoArrowType(f"field {field.name!r} has only empty objects, which Parquet cannot have")
        return pa.schema(fields)

    def _take(self) -> None:
        rows, self._rows = self._rows, []
        if not rows or self._problem:
            return
        if taken := sorted(self._reserved & {name for _, row in rows for name in row}):
            place = next(place for place, row in rows if taken[0] in row)
            self._problem = f"{place}: rows have a field {taken[0]!r} of their own, which the export adds"
            return
        try:
            self._schemas[_schema([row for _, row in rows])] = None
        except _errors():
            self._problem = _first_problem(rows)


def _schema(rows: Sequence[Mapping[str, Any]]) -> Any:
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}).schema


def _first_problem(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Of rows without a schema, the first field and row that has none, alone or with those before it."""
    import pyarrow as pa

    for name in dict.fromkeys(name for _, row in rows for name in row):
        values = [row.get(name) for _, row in rows]
        try:
            name.encode()
        except UnicodeError as error:
            place = next(place for place, row in rows if name in row)
            return f"{place}: field {name!r} has a name that Parquet cannot have ({error})"
        try:
            pa.array(values)
        except _errors():
            for number, (place, _) in enumerate(rows):
                try:
                    pa.array(values[number : number + 1])
                except _errors() as error:
                    return f"{place}: field {name!r} has a value that Parquet cannot have ({error})"
                try:
                    pa.array(values[: number + 1])
                except _errors() as error:
                    reason = f"and those before it have no common type in Parquet ({error})"
                    return f"{place}: field {name!r} {reason}"
    return f"{rows[0][0]}: the fields of the rows from here on have no types in Parquet"


def _errors() -> tuple[type[Exception], ...]:
    """What Arrow raises for values without a type: half a surrogate pair, an integer beyond 64 bits."""
    import pyarrow as pa

    return (pa.ArrowException, UnicodeError, OverflowError)


def _has_empty_struct(type_: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(type_):
        inner = [type_.field(number).type for number in range(type_.num_fields)]
        return not inner or any(map(_has_empty_struct, inner))
    return pa.types.is_list(type_) and _has_empty_struct(type_.value_type)
