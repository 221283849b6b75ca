"""The fields that the proxy and the target share, and those that name parts of a model."""

from typing import Any

from s2l_jax.config.fields import Field, Group, choice, fraction, natural, positive, when

DTYPES = ("float32", "bfloat16")
PROJECTIONS = ("query", "key", "value", "out", "gate", "up", "down")  # of a layer; some have no gate


def projections(default: tuple[str, ...], doc: str, **more: Any) -> Field:
    """A list of projections of a layer, or ("all",)."""
    return Field(
        default,
        f"{doc}: {', '.join(PROJECTIONS)}; all: those that the model has",
        lambda v: v == ("all",) or (bool(v) and set(v) <= set(PROJECTIONS)),
        "projections of a layer, or all",
        (*PROJECTIONS, "all"),
        **more,
    )


def model(doc: str, **more: Any) -> Group:
    return Group(
        doc,
        checkpoint=Field(
            "",
            "directory of the model in Hugging Face layout, or a hub id, such as OWNER/NAME@REVISION",
        ),
        init=choice("pretrained", ("pretrained", "random"), "start from the model's weights, or at random"),
        model_config=Field("", "config.json of the model; empty: the one in its `checkpoint`"),
        tokenizer=Field("", "directory of the tokeniser; empty: that of the model's `checkpoint`"),
        train=Group(
            f"{doc}: how it is trained",
            epochs=positive(3.0, "passes over the rows that are trained on", when=(when("steps", 0),)),
            steps=natural(0, "optimiser steps of the training; 0: by `epochs`", unit="steps"),
            batch_size=positive(128, "examples of an optimiser step", unit="examples"),
            accumulation=positive(1, "microbatches that a step's examples are split into"),
            learning_rate=positive(2e-5, "peak learning rate"),
            schedule=choice(
                "cosine", ("cosine", "linear", "constant"), "learning rate's decay after the warm-up"
            ),
            warmup_fraction=fraction(0.03, "share of the steps with linear warm-up"),
            weight_decay=natural(0.0, "AdamW's weight decay, on matrices and embeddings"),
            beta1=fraction(0.9, "AdamW's decay of the mean of gradients"),
            beta2=fraction(0.999, "AdamW's decay of the mean of squared gradients"),
            epsilon=positive(1e-8, "AdamW's epsilon, added to the root of the second moment"),
            clip_norm=natural(1.0, "global norm that gradients are clipped to; 0: no clipping"),
            loss=choice(
                "token",
                ("token", "example"),
                "loss of a step: the mean over its response tokens, or over its examples",
            ),
            pack=Field(True, "pack several examples into a row; the step's gradient is the same either way"),
            dtype=choice(
                "bfloat16", DTYPES, "type of matrix products in training; parameters and sums are float32"
            ),
            remat=choice(
                "none",
                ("none", "dots", "full"),
                "memory for time: keep all activations, only those of projections, or only each layer's "
                "input",
                decides=False,
            ),
            checkpoint_every=positive(500, "steps between checkpoints", unit="steps", decides=False),
            keep_checkpoints=positive(2, "newest checkpoints that are kept", decides=False),
            log_every=positive(10, "steps between TensorBoard points", unit="steps", decides=False),
        ),
        **more,
    )
