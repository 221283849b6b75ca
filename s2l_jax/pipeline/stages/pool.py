"""Stage `pool`: rows to tokens, once for each tokeniser that the run uses."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from s2l_jax.config import deciding
from s2l_jax.config.inputs import Inputs
from s2l_jax.console import Progress, say
from s2l_jax.data.arrow_types import ArrowTypes
from s2l_jax.data.chat import CHAT, template_identity
from s2l_jax.data.identity import data_identity
from s2l_jax.data.pool import FieldMap, PoolRow, RowReader, read_rows
from s2l_jax.data.pool_fields import BadRow, passed_over
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, fingerprint, prepare
from s2l_jax.data.prompts import render
from s2l_jax.data.row_ids import ids_sha256
from s2l_jax.data.tokens import end_tokens, tokenize_prompts
from s2l_jax.errors import InputError
from s2l_jax.parallel import processes
from s2l_jax.parallel.agreement import said_by_writer
from s2l_jax.records import Record
from s2l_jax.selection.export import ADDED
from s2l_jax.training.run import Run

_PROBLEMS = ("num_skipped", "num_without_loss", "num_cut", "num_boundary_merged")
_MOST_NAMES = 12  # of fields that are not read
_COUNTS = ("num_examples", *_PROBLEMS, "num_tokens", "num_response_tokens")


def prepare_pool(run: Run, *, models: tuple[str, ...]) -> dict[str, PreparedPool]:
    """The prepared pool for each of `models` ("proxy", "target", other proxies as `Inputs.model`).

    Under "rows" it has any of them.
    With no model the rows are stored without tokens. Empty when the config names no pool.

    Raises:
      InputError: bad rows, a template that leaves no room, or rows that changed since another tokeniser's.
    """
    config = run.config
    if not config.pool.path:
        return {}
    # Read by one process: the file may be on its disk alone.
    content = said_by_writer(data_identity(config.pool.path) if processes.is_writer() else "")
    settings = deciding(config, "pool", {"pool.content": content})
    record = Record(run.workdir / "pool", "pool", settings)
    tokenizers: dict[str, Any] = {name: _tokenizer(run, name) for name in models}
    options = TokenizeSettings(**config.tokenize.to_dict())
    for name, tokenizer in tokenizers.items():
        _check_room(tokenizer, options, name)
    skipping = _skipping_templates(run)
    data = json.dumps([settings, sorted(skipping)], sort_keys=True)
    pools, prepared = {}, {}
    for name, tokenizer in (tokenizers or {"rows": None}).items():
        mark = fingerprint(data, tokenizer, options)
        if mark not in prepared:
            path = record.folder / mark
            if processes.is_writer() and not (path / "manifest.json").exists():
                _prepare(run, path, tokenizer, options, list(skipping.values()))
            processes.barrier(f"pool {mark}")
            prepared[mark] = PreparedPool(path)
        pools[name] = prepared[mark]
    pools["rows"] = next(iter(pools.values()))
    manifest = pools["rows"].manifest
    ids = {ids_sha256(each.ids) for each in prepared.values()}
    known = record.results if record.done else {}
    if len(ids | {known.get("ids_sha256", next(iter(ids)))}) > 1:
        raise InputError(
            f"pool.path={config.pool.path!r}: its rows are not those that {record.folder} has of it from "
            "before. Use another --workdir, and a copy of a dataset that changes."
        )
    # Counts without a tokeniser are of rows alone.
    if not known or (manifest["num_tokens"] and not known["num_tokens"]):
        sources = dict(zip(manifest["source_names"], manifest["source_counts"], strict=True))
        found = {name: manifest[name] for name in _COUNTS}
        record.finish(found | {"ids_sha256": next(iter(ids)), "sources": sources})
    return pools


def _tokenizer(run: Run, model: str) -> Any:
    others = {other.model: other for other in (Inputs.of(run.config, name) for name in run.config.proxies)}
    return run.inputs_of(others[model]).tokenizer("proxy") if model in others else run.tokenizer(model)


def _skipping_templates(run: Run) -> dict[str, Any]:
    """By their identity the tokenisers whose chat templates say which rows are skipped; else none.

    Those of all models, whichever are asked for: a row that one cannot take is missing from all pools.
    """
    config = run.config
    if config.tokenize.prompt != CHAT or config.pool.on_bad_row != "skip":
        return {}
    named = [name for name in ("proxy", "target") if config[name].tokenizer or config[name].checkpoint]
    named += [Inputs.of(config, name).model for name in config.proxies]
    tokenizers = [_tokenizer(run, name) for name in named]
    for tokenizer in tokenizers:
        end_tokens(tokenizer, CHAT)  # raises for one that no row would fit
    return {template_identity(tokenizer): tokenizer for tokenizer in tokenizers}


def _check_room(tokenizer: Any, settings: TokenizeSettings, model: str) -> None:
    end_tokens(tokenizer, settings.prompt)  # raises for a chat template that is absent or of no use
    empty = PoolRow(id=0, instruction="", input="", output="", source="", original={}, place="")
    prompt, _ = render(settings.prompt, empty, tokenizer)
    template = tokenize_prompts(tokenizer, [prompt], settings.prompt)[0]
    if len(template) >= settings.max_length:
        raise InputError(
            f"tokenize.max_length={settings.max_length} leaves no room for a response: the template "
            f"{settings.prompt!r} alone has {len(template)} tokens with the {model}'s tokeniser."
        )


def _open_rows(config: ConfigDict, skipping: Sequence[Any]) -> RowReader:
    """The pool's rows as they are read from their source; bad are also those that a template cannot take."""

    def check(row: PoolRow) -> None:
        for tokenizer in skipping:
            try:
                render(CHAT, dataclasses.replace(row, place=""), tokenizer, config.tokenize.turns)
            except InputError as error:
                raise BadRow(str(error)) from None

    return read_rows(
        config.pool.path,
        format=config.pool.format,
        split=config.pool.split,
        limit=config.pool.limit,
        fields=FieldMap(**config.pool.fields.to_dict()),
        on_bad_row=config.pool.on_bad_row,
        multi_turn=config.tokenize.prompt == CHAT,
        check=check,
    )


def _prepare(
    run: Run, path: Any, tokenizer: Any, settings: TokenizeSettings, skipping: Sequence[Any]
) -> None:
    reader = _open_rows(run.config, skipping)
    doing = "reading the pool" if tokenizer is None else "tokenising the pool"
    progress = Progress(doing, run.config.pool.limit, "rows")

    types = ArrowTypes(ADDED)
    unread: dict[str, None] = {}

    def rows() -> Iterator[PoolRow]:
        for row in reader:
            types.add(row.place, row.original)
            unread.update(dict.fromkeys(passed_over(row.original, reader.fields)))
            yield row

    def notes() -> dict[str, Any]:
        problem = types.problem()  # kept, since exports may be asked for later
        return {"num_skipped": reader.num_skipped, "skipped": reader.skipped[:100], "not_in_parquet": problem}

    prepare(path, rows, tokenizer, settings, progress=progress.update, notes=notes)
    progress.close()
    if unread:
        names = [*map(repr, [*unread][:_MOST_NAMES]), *(["..."] if len(unread) > _MOST_NAMES else [])]
        say(f"fields of the pool that are not read (pool.fields has those that are): {', '.join(names)}")
    if reader.num_skipped:
        shown = "; ".join(f"{place}: {reason}" for place, reason in reader.skipped[:5])
        text = "%d bad rows were skipped, which indices.npy does not count; the first: %s"
        logging.warning(text, reader.num_skipped, shown)
