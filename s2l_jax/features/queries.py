"""A few rows of the task that the subset is for, as the pool's rows are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ml_collections import ConfigDict

from s2l_jax.config.fingerprint import deciding
from s2l_jax.data.identity import data_identity
from s2l_jax.data.pool import FieldMap, PoolRow, read_rows
from s2l_jax.data.prompts import render
from s2l_jax.data.tokens import TokenizedList, tokenize
from s2l_jax.errors import InputError
from s2l_jax.features.feature import FEATURES, Feature, SelectionContext

if TYPE_CHECKING:
    from s2l_jax.training.models import Model
    from s2l_jax.training.run import Run


def query_rows(run: Run) -> list[PoolRow]:
    """The rows of `selection.queries`.

    Raises:
      InputError: selection.queries is empty, or cannot be read.
    """
    asked = run.config.selection
    if not asked.queries:
        raise InputError(
            "selection.queries is empty: name a file with a few rows of the task that the subset is for, in "
            "the pool's schema, but not those that evaluate it."
        )
    return list(
        read_rows(asked.queries, limit=asked.query_limit, fields=FieldMap(**run.config.pool.fields.to_dict()))
    )


class QueryFeature(Feature):
    """A feature of the rows of `selection.queries`; how they are worked on is as for the pool's.

    Attributes:
      of_pool: the same feature of the pool's rows.
    """

    of_pool: ClassVar[str]

    def goes_by(self, config: ConfigDict, other: ConfigDict, options: dict[str, Any]) -> bool:
        return FEATURES.find(self.of_pool).goes_by(config, other, options)

    def by_proxy(self, config: ConfigDict, options: dict[str, Any]) -> bool:
        return FEATURES.find(self.of_pool).by_proxy(config, options)

    def check(self, run: Run, name: str, options: dict[str, Any]) -> None:
        query_rows(run)

    def settings(self, config: ConfigDict, options: dict[str, Any]) -> dict[str, Any]:
        return deciding(config, ("selection.query_limit", "pool.fields", "tokenize"))

    def content(self, context: SelectionContext, options: dict[str, Any]) -> dict[str, Any]:
        return {"selection.queries": data_identity(context.run.config.selection.queries)}


def tokenized_queries(run: Run, model: Model, rows: list[PoolRow]) -> TokenizedList:
    """Query rows as tokens, by the pool's settings.

    Raises:
      InputError: a row whose response is cut away.
    """
    asked = run.config.tokenize
    texts = [render(asked.prompt, row, model.tokenizer, asked.turns) for row in rows]
    examples = tokenize(
        model.tokenizer, texts, max_length=asked.max_length, boundary=asked.boundary, template=asked.prompt
    )
    for row, example in zip(rows, examples, strict=True):
        if not example.has_response:
            raise InputError(
                f"{row.place}: no response is left of this query within tokenize.max_length="
                f"{asked.max_length}"
            )
    return TokenizedList(examples)
