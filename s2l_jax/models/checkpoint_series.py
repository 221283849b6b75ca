"""The checkpoints that one training left, by their step: folders, globs of them, or revisions on the hub."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from s2l_jax import artifacts
from s2l_jax.errors import InputError
from s2l_jax.models import hf
from s2l_jax.models.architecture import DecoderConfig
from s2l_jax.models.weight_files import identity, index_of
from s2l_jax.models.weights import check_weights

# checkpoint-500, step1000, global_step500, 500; with more before or after it, as in stage1-step1000-tokens4B.
_STEP = re.compile(
    r"(?:^|(?<=[-_./]))(?:checkpoint|ckpt|global_?step|step|iter|iteration)[-_]?(\d+)(?=$|[-_.])"
)
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
_ADAPTER = "adapter_config.json"


def find_checkpoints(names: Sequence[str]) -> dict[int, str]:
    """The folder, or the hub's owner/name@revision, of each checkpoint by its step, in order of steps.

    Local folders are looked at; the hub is not asked.

    Args:
      names: folders in Hugging Face layout, globs of them (files that match are passed over), or hub ids
        with a revision.

    Raises:
      InputError: a name that leads nowhere, a folder without config.json or weights, a step that its name
        does not tell, or two checkpoints with the same step.
    """
    found: dict[int, str] = {}
    for name in names:
        for each in _matching(name):
            step = _step_of(each)
            if step in found:
                raise InputError(
                    f"trajectories.checkpoints: {found[step]} and {each} are both of step {step}; leave "
                    "one out."
                )
            found[step] = each
    return dict(sorted(found.items()))


def open_checkpoints(names: dict[int, str]) -> dict[int, epath.Path]:
    """The local folder of each checkpoint that `find_checkpoints` named; those of the hub are downloaded."""
    return {step: hf.resolve(name) for step, name in names.items()}


def check_checkpoints(folders: dict[int, epath.Path], tokenizer: Any, place: str) -> DecoderConfig:
    """The decoder that all checkpoints are of.

    Args:
      folders: from `open_checkpoints`.
      tokenizer: what rows are tokenised with; that of a checkpoint which brings its own must be the same.
      place: where it came from, for errors.

    Raises:
      InputError: weights that do not fit config.json, checkpoints of different models, or another vocabulary.
    """
    first, *_ = folders.values()
    decoder = hf.load_config(first)
    for folder in folders.values():
        own = hf.load_config(folder)
        if others := [
            f.name for f in dataclasses.fields(own) if getattr(own, f.name) != getattr(decoder, f.name)
        ]:
            name = others[0]
            raise InputError(
                f"{folder}: its {name} is {getattr(own, name)}, that of {first} is {getattr(decoder, name)}: "
                "trajectories.checkpoints must be of one model's training."
            )
        _check_vocabulary(folder, own, tokenizer, place)
        check_weights(folder, own)
    return decoder


def content_of(folder: epath.Path) -> dict[str, str]:
    """Hashes of a checkpoint's config.json and weights, by their names; see `weight_files.identity`."""
    return {"config.json": hf.config_digest(folder), **identity(folder)}


def _matching(name: str) -> list[str]:
    path = epath.Path(name)
    if path.is_dir():
        _check_folder(path)
        return [name]
    if artifacts.is_pattern(name):
        folders = artifacts.matching_folders(name)
        if not folders:
            raise InputError(f"trajectories.checkpoints: {name} matches no folder; check the pattern.")
        for folder in folders:
            _check_folder(folder)
        return list(map(str, folders))
    if hf.is_hub_id(name) and "@" in name:
        return [name]
    raise InputError(
        f"trajectories.checkpoints: {name} is no folder, and no hub id with a revision, such as "
        "owner/name@step1000."
    )


def _step_of(name: str) -> int:
    folder, _, revision = name.partition("@") if not epath.Path(name).is_dir() else (name, "", "")
    text = revision or epath.Path(folder).name
    steps = [text] if text.isdecimal() else _STEP.findall(text)
    if len(steps) != 1:
        raise InputError(
            f"trajectories.checkpoints: {name}: its step cannot be read from the name {text!r}; name it "
            "checkpoint-<step>, as the Hugging Face Trainer does."
        )
    return int(steps[0])


def _check_folder(folder: epath.Path) -> None:
    """Find now what would stop the sweep of a folder, from the names in it."""
    if (folder / _ADAPTER).exists() and not (folder / "config.json").exists():
        raise InputError(
            f"{folder}: an adapter alone ({_ADAPTER}): merge it into its model, with PEFT's "
            "merge_and_unload, and save that."
        )
    if not (folder / "config.json").exists():
        inner = sorted(each.name for each in folder.iterdir() if each.is_dir() and _STEP.search(each.name))
        help = f"; did you mean {folder}/{inner[0].rpartition('-')[0] or 'checkpoint'}-*?" if inner else "."
        raise InputError(f"{folder}: no checkpoint: it has no config.json{help}")
    index_of(folder)


def _check_vocabulary(folder: epath.Path, decoder: DecoderConfig, tokenizer: Any, place: str) -> None:
    if len(tokenizer) > decoder.vocab_size:
        raise InputError(
            f"{folder}: its vocabulary is {decoder.vocab_size}, the tokeniser of {place} has "
            f"{len(tokenizer)} tokens: they do not belong together. Set proxy.tokenizer to the one that it "
            "was trained with."
        )
    if not any((folder / name).exists() for name in _TOKENIZERS):
        return
    own = hf.load_tokenizer(folder)
    if own.get_vocab() != tokenizer.get_vocab() or own.eos_token_id != tokenizer.eos_token_id:
        raise InputError(
            f"{folder}: it was saved with another tokeniser than that of {place}: the vocabularies or the "
            f"tokens that end a text differ. Set proxy.tokenizer={folder} to use its own."
        )
