"""results.json read back: the schema says what every field is, and the table has a row for each run."""

import json

import jsonschema
import pytest

import s2l_jax
from s2l_jax.errors import InputError
from s2l_jax.report.load import results_schema
from tests.support.results import make_results


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(make_results(), default=float).replace("NaN", "null"))
    return tmp_path


def undescribed(schema, place=""):
    """Fields of a schema that say nothing of themselves."""
    found = []
    for name, field in {**schema.get("properties", {}), **schema.get("$defs", {})}.items():
        if "description" not in field and name not in schema.get("$defs", {}):
            found.append(f"{place}{name}")
        found += undescribed(field, f"{place}{name}.") + undescribed(
            field.get("items") or {}, f"{place}{name}."
        )
        inside = field.get("additionalProperties")
        found += undescribed(inside, f"{place}{name}.") if isinstance(inside, dict) else []
    return found


def test_the_schema_fits_results_and_describes_every_field(workdir):
    schema = results_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(s2l_jax.load_results(workdir).content, schema)
    assert undescribed(schema) == []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(make_results() | {"selections": {"s2l": {"method": 3}}}, schema)


def test_a_row_for_each_run_with_its_numbers(workdir):
    results = s2l_jax.load_results(workdir / "results.json")
    rows = {row["name"]: row for row in results.rows}
    assert set(rows) == {"untuned", *results.content["selections"]}
    row = rows["s2l-100-seed1"]
    assert (row["method"], row["budget"], row["seed"], row["accuracy"]) == ("s2l", 100, 1, 0.5)
    assert row["selection_seconds"] == 26.0  # the proxy and its sweeps are charged
    assert rows["untuned"]["size"] is None


def test_the_table_is_of_pandas(workdir):
    pytest.importorskip("pandas")
    table = s2l_jax.load_results(workdir).table
    means = table.groupby(["method", "budget"])["accuracy"].mean()
    assert means["s2l", 100] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "does not exist"), ("{", "JSON"), ("[]", "no results.json")]
)
def test_what_is_no_results_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=message):
        s2l_jax.load_results(tmp_path)
