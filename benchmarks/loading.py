"""Peak host memory of loading a checkpoint, where the host is the device: how much above the model itself.

    python benchmarks/loading.py --gigabytes=2

Writes a Llama checkpoint of that size in float32 to a temporary folder (random weights, shards of 500 MB),
loads it in a fresh process, and compares that process's peak resident memory, its libraries taken off, with
the model and its largest stacked leaf.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

_LOAD = """
import resource, sys, time, jax
import s2l_jax
from s2l_jax.models.parameters import flatten_params, model_params
jax.numpy.zeros(8).block_until_ready()
import safetensors, huggingface_hub
s2l_jax.load_model(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
model = s2l_jax.load_model(sys.argv[2])
jax.block_until_ready(model_params(model))
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sizes = sorted(leaf.nbytes for leaf in flatten_params(model_params(model)).values())
print(before * 1024, peak * 1024, sum(sizes), sizes[-1], seconds)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the checkpoint")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tiny, large = pathlib.Path(folder) / "tiny", pathlib.Path(folder) / "large"
        _write(tiny, layers=1, hidden=64, vocabulary=128)
        layers = max(1, round((options.gigabytes * 2**30 / 4 - 2 * 32000 * 2048) / (3.5 * 4 * 2048 * 2048)))
        _write(large, layers=layers, hidden=2048, vocabulary=32000)
        out = subprocess.run(
            [sys.executable, "-c", _LOAD, str(tiny), str(large)], check=True, capture_output=True, text=True
        )
    before, peak, model, leaf, seconds = map(float, out.stdout.split())
    print(f"model {model / 1e9:.2f} GB, largest stacked leaf {leaf / 1e9:.2f} GB, loaded in {seconds:.1f} s")
    print(f"peak above the process before: {(peak - before) / 1e9:.2f} GB")
    print(f"ratio to model + leaf: {(peak - before) / (model + leaf):.2f}")


def _write(path: pathlib.Path, *, layers: int, hidden: int, vocabulary: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from s2l_jax.models.families import decoder_config
    from s2l_jax.models.weights import INDEX, stored_tensors

    config = {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": hidden * 10 // 3 // 64 * 64,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "max_position_embeddings": 2048,
    }
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    shard: dict[str, np.ndarray] = {}
    index: dict[str, str] = {}

    def flush() -> None:
        file = f"model-{len(set(index.values())) + 1:05d}.safetensors"
        save_file(shard, path / file)
        index.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, shape in stored_tensors(decoder_config(config, "benchmark")):
        shard[name] = rng.standard_normal(shape, np.float32)
        if sum(tensor.nbytes for tensor in shard.values()) > 500e6:
            flush()
    if shard:
        flush()
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


if __name__ == "__main__":
    main()
