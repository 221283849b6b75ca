"""What training leaves behind: a directory for transformers or an adapter for PEFT, written and read."""

from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from s2l_jax import artifacts
from s2l_jax.models import hf, weights
from s2l_jax.models.decoder import Decoder
from s2l_jax.models.lora import merge
from s2l_jax.models.parameters import Params, bind
from s2l_jax.models.peft import load_adapter, save_adapter
from s2l_jax.parallel.placement import load_model, put_adapters
from s2l_jax.training.models import Model
from s2l_jax.training.run import Run

WHOLE, ADAPTER = "hf", "adapter"  # folders of what training made


def export(run: Run, model: Model, params: Params, folder: epath.Path) -> None:
    """Write what training made: a directory that transformers loads, or an adapter that PEFT loads."""
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
        return
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


def load_export(run: Run, folder: epath.Path, dtype: Any) -> tuple[Decoder, Any]:
    """The model, in `dtype`, and tokeniser that `export` wrote."""
    settings: ConfigDict = run.config.target
    if not settings.lora.rank or settings.lora.export == "merged":
        with artifacts.reading_folder(folder / WHOLE) as path:
            return load_model(str(path), run.mesh, dtype), hf.load_tokenizer(path)
    model = run.model("target")
    assert model.lora is not None
    with artifacts.reading_folder(folder / ADAPTER) as path:
        adapters = load_adapter(path, model.trained_config)
        tokenizer = hf.load_tokenizer(path)
    adapters = put_adapters(model.trained_config, run.mesh, adapters)
    params = merge(model.initial_params(), adapters, model.lora)
    return bind(model.config, jax.tree.map(lambda p: p.astype(dtype), params)), tokenizer
