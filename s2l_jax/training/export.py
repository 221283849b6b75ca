"""What training leaves behind: a directory for transformers or an adapter for PEFT, written and read."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from s2l_jax import artifacts, integrity
from s2l_jax.errors import InputError
from s2l_jax.models import hf, weights
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.lora import merge
from s2l_jax.models.parameters import Params, bind
from s2l_jax.models.peft import load_adapter, save_adapter
from s2l_jax.parallel.placement import load_model, put_adapters
from s2l_jax.records import stored_digests, stored_results
from s2l_jax.training.models import Model
from s2l_jax.training.run import Run

WHOLE, ADAPTER = "hf", "adapter"  # folders of what training made


def export(run: Run, model: Model, params: Params, folder: epath.Path) -> str:
    """Write what training made: a directory that transformers loads, or an adapter that PEFT loads.

    Returns the name of the directory, which is in `folder`.
    """
    settings: ConfigDict = run.config.target
    dtype = weights.DTYPES[settings.export_dtype]
    if model.lora is not None and settings.lora.export == "adapter":
        save_adapter(
            folder / ADAPTER,
            params,
            model.trained_config,
            base=settings.checkpoint,
            dtype=dtype,
            tokenizer=model.tokenizer,
        )
        return ADAPTER
    if model.lora is not None:
        params = merge(model.initial_params(), params, model.lora)
    hf.save_model(
        folder / WHOLE,
        params,
        model.config,
        model.hf_config,
        dtype=dtype,
        tokenizer=model.tokenizer,
        source=model.directory,
    )
    return WHOLE


def load_export(run: Run, folder: epath.Path, dtype: Any) -> tuple[Decoder, Any]:
    """The model, in `dtype`, and tokeniser that `export` wrote.

    Raises:
      InputError: no target was trained to the end, or a file of it is gone or not as it was written.
    """
    settings: ConfigDict = run.config.target
    if not settings.lora.rank or settings.lora.export == "merged":
        with _whole(folder, WHOLE) as path:
            return load_model(str(path), run.mesh, dtype), hf.load_tokenizer(path)
    model = run.model("target")
    assert model.lora is not None
    with _whole(folder, ADAPTER) as path:
        adapters = load_adapter(path, model.trained_config)
        tokenizer = hf.load_tokenizer(path)
    adapters = put_adapters(model.trained_config, run.mesh, adapters)
    params = merge(model.initial_params(), adapters, model.lora)
    return bind(model.config, jax.tree.map(lambda p: p.astype(dtype), params)), tokenizer


@contextlib.contextmanager
def _whole(folder: epath.Path, name: str) -> Iterator[epath.Path]:
    """A local folder with what was exported as `name`, compared with what its record says of it."""
    if stored_results(folder) is None and not (folder / name).exists():
        raise InputError(f"{folder}: no target was trained to the end there: run the stage target first.")
    kept = {file.removeprefix(f"{name}/"): digest for file, digest in stored_digests(folder).items()}
    with artifacts.reading_folder(folder / name) as path:
        fix = "run the stages target and evaluation together, which export it again"
        integrity.check(path, kept, fix, shown=folder / name)
        yield path
