"""What a Parquet file of rows can hold, found row by row."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2l_jax.data.arrow_types import ArrowTypes, NoArrowType


def types_of(rows, names=()):
    types = ArrowTypes(names)
    for number, row in enumerate(rows):
        types.add(f"pool.jsonl:{number + 1}", row)
    return types


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"a": 1}, {"a": "\ud83d"}], r"^pool.jsonl:2: field 'a' has a value .*surrogates"),
        ([{"a": 1}, {"\ud83d": 1}], r"^pool.jsonl:2: field '\\ud83d' has a name"),
        ([{"a": "\ud83d"}], r"^pool.jsonl:1: field 'a' has a value"),
        ([{"a": 2**63}], r"^pool.jsonl:1: field 'a' has a value that Parquet cannot have"),
        ([{"a": [2**64 - 1]}], r"^pool.jsonl:1: field 'a' has a value"),
        ([{"a": {}}], r"field 'a' has only empty objects"),
        ([{"a": [{"b": {}}]}, {"a": []}], r"field 'a' has only empty objects"),
        ([{"a": 1}, {"a": "x"}], r"^pool.jsonl:2: field 'a' and those before it have no common type"),
        ([{"a": 1}] * 2000 + [{"a": "x"}], r"no common type in Parquet"),
        ([{"a": 1}, {"s2l_id": 1}], r"^pool.jsonl:2: rows have a field 's2l_id' of their own"),
    ],
)
def test_what_it_cannot_hold(rows, problem):
    types = types_of(rows, ["s2l_id"])
    with pytest.raises(NoArrowType, match=problem):
        types.schema()
    with pytest.raises(NoArrowType, match=problem):
        raise NoArrowType(types.problem())


def test_an_empty_object_beside_a_full_one():
    assert types_of([{"a": {}}, {"a": {"b": 1}}]).schema() == pa.schema({"a": pa.struct({"b": pa.int64()})})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2), min_size=1, max_size=4))
def test_what_has_types_can_be_written(rows):
    types = types_of(rows)
    if types.problem():
        return
    schema = types.schema()
    arrays = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    if len(schema):
        pq.write_table(pa.table(arrays, schema=schema), io.BytesIO())
