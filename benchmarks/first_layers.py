"""The first layers of a checkpoint as a smaller one: a proxy of study 3.

    python benchmarks/first_layers.py --checkpoint=runs/smollm2 --layers=6 --out=runs/smollm2_6_layers

Embeddings, final norm and head stay as they are; nothing is trained. The folder is in Hugging Face layout.
"""

import argparse
import json
import pathlib
import re

import transformers
from safetensors import safe_open
from safetensors.flax import save_file

_LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")


def main() -> None:
    """Write the smaller checkpoint."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="folder with safetensors")
    parser.add_argument("--layers", type=int, required=True, help="layers that are kept, from the first")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    args = parser.parse_args()
    config = json.loads((args.checkpoint / "config.json").read_text())
    name = next(name for name in ("num_hidden_layers", "n_layer") if name in config)
    if not 1 <= args.layers <= config[name]:
        parser.error(f"--layers={args.layers}: {args.checkpoint} has {config[name]}")
    kept = {}
    for file in sorted(args.checkpoint.glob("*.safetensors")):
        with safe_open(file, "flax") as tensors:
            for key in tensors.keys():  # noqa: SIM118  it is no dictionary
                layer = _LAYER.search(f".{key}")
                if layer is None or int(layer[1]) < args.layers:
                    kept[key] = tensors.get_tensor(key)
    layers = {int(layer[1]) for key in kept if (layer := _LAYER.search(f".{key}"))}
    if layers != set(range(args.layers)):
        parser.error(f"{args.checkpoint}: no tensors of {args.layers} layers in its *.safetensors")
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.checkpoint)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(kept, args.out / "model.safetensors", metadata={"format": "pt"})
    config[name] = args.layers
    if config.get("layer_types"):
        config["layer_types"] = config["layer_types"][: args.layers]
    (args.out / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer.save_pretrained(args.out)
    print(
        f"{args.out}: {args.layers} layers, {sum(each.size for each in kept.values()) / 1e6:.1f}M parameters"
    )


if __name__ == "__main__":
    main()
