"""Every field of a run, once: default, type, unit, meaning, check, and whether results depend on it."""

from collections.abc import Iterator

from s2l_jax.config.evaluation_fields import EVALUATION
from s2l_jax.config.fields import (
    Field,
    Group,
    axis,
    choice,
    fraction,
    natural,
    positive,
    seeds,
    share,
    unless,
    when,
)
from s2l_jax.config.model_fields import DTYPES, model, projections
from s2l_jax.config.selection_fields import CLUSTERING, SELECTION
from s2l_jax.data.chat import CHAT
from s2l_jax.data.prompts import TEMPLATES, TURNS
from s2l_jax.data.tokens import BOUNDARIES

_SWEEPS = when("source", "sweep")
_ADAPTS = unless("rank", 0)
_MEASURES = when("theory", True)

SCHEMA: Group = Group(
    "The experiment",
    name=Field("", "name of the experiment in the report", decides=False),
    seed=natural(0, "seed of initialisation, order, clustering and sampling"),
    seeds=seeds(
        "seeds of replicates, such as 0,1,2: each has its own subset and target of every run; empty: seed",
        decides=False,
        adds=True,
    ),
    wandb=Field(
        "",
        "project of Weights & Biases to follow training in, beside TensorBoard (pip install wandb); "
        "WANDB_MODE=offline keeps it here; empty: none",
        decides=False,
    ),
    pool=Group(
        "The pool: rows to choose from",
        path=Field(
            "synthetic",
            "file, glob, comma-separated files, hub dataset id, tfds:NAME, or 'synthetic'; empty: none, for "
            "imported trajectories",
        ),
        format=choice(
            "auto",
            ("auto", "jsonl", "json", "parquet", "hub", "tfds", "synthetic"),
            "format of pool.path; auto looks at prefix, suffix and disk",
        ),
        split=Field("train", "split of a hub dataset or a TFDS name"),
        limit=natural(0, "rows read of the pool; 0: all", unit="rows"),
        on_bad_row=choice("error", ("error", "skip"), "stop at a bad row, or skip and count it"),
        fields=Group(
            "The pool: names of its rows' fields",
            instruction=Field("instruction", "field that holds the instruction"),
            input=Field("input", "field that holds the input, where there is one"),
            output=Field("output", "field that holds the response"),
            messages=Field("messages", "field that holds a conversation, in rows that have one instead"),
            source=Field("source", "field that names the row's source, where there is one"),
            id=Field("", "field that holds a unique id; empty: ids are made from the content"),
            system=Field("system", "field that holds a system message, where there is one"),
            history=Field("history", "field that holds earlier turns in pairs, where there are any"),
            tools=Field("tools", "field that holds schemas of functions for the chat template, if any"),
            ignore=Field(
                (),
                "fields of rows and messages that are left out though trainers read them "
                "(docs/guide/data.md)",
                all,
                "names, none of them empty",
            ),
        ),
    ),
    tokenize=Group(
        "How rows become tokens",
        prompt=choice(
            "alpaca",
            (*TEMPLATES, CHAT),
            "prompt template; chat: the tokeniser's own, the only one for several turns",
        ),
        boundary=choice(
            "separate",
            BOUNDARIES,
            "tokenise prompt and response apart, or joined as the official code does",
        ),
        turns=choice(
            "last",
            TURNS,
            "learn the last response of a conversation, or, with prompt=chat, all answers of the assistant",
        ),
        max_length=Field(512, "tokens kept of an example", lambda v: v >= 2, "2 or above", unit="tokens"),
    ),
    mesh=Group(
        "Devices: data x fsdp x tensor of them",
        data=axis(-1, "devices that rows are spread over; -1: what remains", decides=False),
        fsdp=axis(1, "devices that rows and weights are spread over", decides=False),
        tensor=axis(1, "devices that heads, MLP and vocabulary are spread over", decides=False),
    ),
    attention=choice(
        "auto",
        ("auto", "xla"),
        "attention; auto: cuDNN's or splash on a GPU or TPU where it is exact and works; xla: neither",
        decides=False,
    ),
    proxy=model(
        "The proxy",
        per_seed=Field(
            False,
            "each replicate (seeds) has a proxy, trajectories and features of its own seed, in "
            "seed_N/ of the workdir; False: all share those of `seed`",
            decides=False,
        ),
        save_params=Field(
            False, "keep the proxy's parameters at each sweep, 4 bytes each, to sweep again without training"
        ),
    ),
    trajectories=Group(
        "Trajectories: the losses that rows are selected by",
        path=Field(
            "",
            "trajectories made elsewhere (.zarr, .npy, .npz, .parquet, or a folder of the official code's "
            "losses); no proxy is trained",
            by_content=True,
        ),
        source=choice(
            "sweep",
            ("sweep", "train"),
            "sweep: losses at the cadence; train: those of the training steps, one an epoch, at no cost",
        ),
        snapshots=Field(
            "",
            "proxy/snapshots of another workdir, to sweep again with other rows or dtype; no training",
            by_content=True,
        ),
        checkpoints=Field(
            (),
            "checkpoints trained elsewhere, to sweep without training: out/checkpoint-* of the Hugging Face "
            "Trainer, folders, or owner/name@revision",
            all,
            "folders, globs or hub ids, none of them empty",
            by_content=True,
        ),
        cadence=choice(
            "every",
            ("every", "even", "log", "list"),
            "when to sweep: each `every` steps; `num_checkpoints` times, evenly or denser early; at `steps`",
            when=(_SWEEPS,),
        ),
        every=positive(
            500, "proxy steps between sweeps", unit="steps", when=(_SWEEPS, when("cadence", "every"))
        ),
        num_checkpoints=positive(
            12, "sweeps of a run, the last step's among them", when=(_SWEEPS, when("cadence", "even", "log"))
        ),
        steps=Field(
            (),
            "proxy steps to sweep after, such as 10,50,200",
            lambda v: all(step >= 0 for step in v),
            "0 or above each",
            unit="steps",
            items=int,
            when=(_SWEEPS, when("cadence", "list")),
        ),
        step_zero=Field(False, "sweep before the first step, too", when=(_SWEEPS,)),
        stop_when_stable=natural(
            0,
            "end the proxy's training after as many sweeps in a row that hardly changed the clusters; 0: no",
            when=(_SWEEPS,),
        ),
        stable_above=Field(
            0.95,
            "adjusted Rand index with the clusters before that counts as hardly changed",
            lambda v: 0 < v < 1,
            "above 0 and below 1",
            when=(_SWEEPS, unless("stop_when_stable", 0)),
        ),
        slice_count=natural(
            0,
            "rows whose losses are tracked, drawn source by source; 0: all",
            unit="rows",
            by_content=True,
        ),
        slice_fraction=share(
            1.0, "share of the pool's rows whose losses are tracked, drawn source by source", by_content=True
        ),
        slice_ids=Field(
            "",
            "file with the ids of the rows whose losses are tracked (.npy, or text with one on each line)",
            by_content=True,
        ),
        dtype=choice("float32", DTYPES, "type of matrix products in sweeps", when=(_SWEEPS,)),
        batch_tokens=natural(
            0,
            "tokens a device sweeps at a time; 0: 1024 on CPUs, 16384 elsewhere",
            unit="tokens",
            decides=False,
        ),
        pinned_mb=positive(
            4096,
            "device memory that the packed pool may keep; above, it is streamed",
            unit="MB",
            decides=False,
        ),
    ),
    clustering=CLUSTERING,
    selection=SELECTION,
    target=model(
        "The target",
        match_by=choice(
            "steps",
            ("steps", "epochs"),
            "each subset is trained on for as many steps as the full pool would be, or as many epochs",
            when=(when("train.steps", 0),),
        ),
        lora=Group(
            "The target: adapters beside frozen weights (LoRA)",
            rank=natural(0, "rank of the target's adapters; 0: none, all weights are trained"),
            alpha=positive(
                16.0, "alpha of the target's adapters: they are scaled by alpha / rank", when=(_ADAPTS,)
            ),
            dropout=fraction(0.0, "dropout of the adapters' input while training", when=(_ADAPTS,)),
            projections=projections(("all",), "projections that have adapters", when=(_ADAPTS,)),
            export=choice(
                "merged",
                ("merged", "adapter"),
                "merged: a whole model in target/<name>/hf; adapter: for PEFT, in target/<name>/adapter",
                when=(_ADAPTS,),
            ),
        ),
        use_weights=Field(False, "weight examples by |C_k| / R_k; needs target.train.loss='example'"),
        export_dtype=choice("float32", DTYPES, "type of the weights in target/<name>/hf"),
    ),
    evaluation=EVALUATION,
    analysis=Group(
        "Analysis: what the method's theorem claims, measured (docs/design/theory.md)",
        theory=Field(
            False,
            "train a target on the whole pool, and measure whether rows of a cluster have like gradients",
            decides=False,
            adds=True,
        ),
        run=Field(
            "",
            "selection run whose clusters and subset are judged; empty: the first of method s2l",
            when=(_MEASURES,),
        ),
        rows=natural(
            1024,
            "rows whose gradients are taken, in whole clusters drawn at random; 0: all",
            unit="rows",
            when=(_MEASURES,),
        ),
        checkpoints=Field(
            4,
            "checkpoints at which gradients are taken, evenly from before the target's training to its end",
            lambda v: v >= 2,
            "2 or above",
            when=(_MEASURES,),
        ),
        dims=natural(512, "numbers that a gradient is projected to; 0: no projection", when=(_MEASURES,)),
        dtype=choice(
            "float32", DTYPES, "type of matrix products for losses and gradients", when=(_MEASURES,)
        ),
        batch_tokens=positive(
            4096, "tokens a device takes gradients of at a time", unit="tokens", decides=False
        ),
    ),
    report=Group(
        "The report",
        baseline=Field(
            "",
            "run that all others are compared with; empty: the first of method random",
            decides=False,
        ),
        texts=Field(True, "show texts of the pool's rows in the page; False for private data", decides=False),
    ),
)


def walk(schema: Group = SCHEMA, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Every field by its dotted name; those of selection.runs are in `config.runs`."""
    for name, field in schema.items():
        if isinstance(field, Group):
            yield from walk(field, f"{prefix}{name}.")
        else:
            yield prefix + name, field
