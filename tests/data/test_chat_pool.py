"""Pools of conversations: prepared, refused or passed over, and their losses."""

import json
from typing import ClassVar

import numpy as np
import pytest
from etils import epath

from s2l_jax.config import default, validate
from s2l_jax.data.pool import row_of
from s2l_jax.data.prepared import PreparedPool, TokenizeSettings, fingerprint, prepare
from s2l_jax.data.tokens import TokenizedExample, TokenizedList
from s2l_jax.errors import InputError
from s2l_jax.pipeline.stages.pool import prepare_pool
from s2l_jax.training.run import Run
from tests.support.chat import KINDS, TOKENIZERS, UNMARKED, changed, example_of, make_tokenizer

transformers = pytest.importorskip("transformers")


class TestStage:
    TALK: ClassVar = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]

    @pytest.fixture
    def run(self, tmp_path, one_device_mesh):
        """A run over a row of one turn and one of two, whose models are tokenisers alone."""
        config = default()
        for model in ("proxy", "target"):
            make_tokenizer(KINDS["llama3"]).save_pretrained(tmp_path / model)
            config[model].checkpoint = str(tmp_path / model)
        lines = [json.dumps({"messages": self.TALK * turns}) for turns in (1, 2)]
        (tmp_path / "pool.jsonl").write_text("\n".join(lines))
        config.pool.path = str(tmp_path / "pool.jsonl")
        config.tokenize.prompt = "chat"
        config.trajectories.every = 1
        validate(config)
        return Run(config, epath.Path(tmp_path / "run"), one_device_mesh)

    def test_a_tokeniser_without_a_template_is_refused_before_any_row_is_read(self, run, tmp_path):
        bare = make_tokenizer(KINDS["llama3"])
        bare.chat_template = None
        for file in (tmp_path / "target").iterdir():
            file.unlink()
        bare.save_pretrained(tmp_path / "target")
        with pytest.raises(InputError, match=r"the tokeniser '.*/target' has none"):
            prepare_pool(run, models=("proxy", "target"))
        assert not list(tmp_path.rglob("manifest.json"))

    def test_too_little_room(self, run):
        run.config.tokenize.max_length = 5
        with pytest.raises(InputError, match=r"max_length=5 leaves no room .* 'chat' alone has \d+ tokens"):
            prepare_pool(run, models=("proxy",))

    def test_several_turns(self, run):
        pools = prepare_pool(run, models=("proxy", "target"))
        assert pools["proxy"] is pools["target"]
        assert len(pools["rows"]) == 2

    @pytest.mark.parametrize("on_bad_row", ["error", "skip"])
    def test_several_turns_under_another_template(self, run, on_bad_row):
        run.config.tokenize.prompt = "plain"
        run.config.pool.on_bad_row = on_bad_row
        if on_bad_row == "error":
            with pytest.raises(InputError, match=r'pool\.jsonl:2: .* set tokenize\.prompt="chat"'):
                prepare_pool(run, models=("proxy",))
        else:
            pool = prepare_pool(run, models=("proxy",))["proxy"]
            assert (len(pool), pool.manifest["num_skipped"]) == (1, 1)

    def test_rows_that_either_template_loses_text_of_are_skipped_for_both(self, run, tmp_path):
        """A row that is missing from one model's pool is missing from the other's."""
        make_tokenizer(KINDS["gemma"]).save_pretrained(tmp_path / "target")  # it takes no system message
        led = [{"role": "system", "content": "s"}, *self.TALK]
        block = [self.TALK[0], {"role": "assistant", "content": "  a\n  b"}]  # both trim
        kept = [self.TALK, [*self.TALK, *self.TALK]]
        lines = [json.dumps({"messages": talk}) for talk in (kept[0], led, block, kept[1])]
        (tmp_path / "pool.jsonl").write_text("\n".join(lines))
        with pytest.raises(InputError, match=r"pool\.jsonl:3: .*changes or drops part of the response"):
            prepare_pool(run, models=("proxy",))
        run.config.pool.on_bad_row = "skip"
        pools = prepare_pool(run, models=("proxy",)) | prepare_pool(run, models=("target",))
        pools |= {"none": prepare_pool(run, models=())["rows"]}
        for pool in pools.values():
            assert [row["messages"] for row in pool.originals(range(len(pool)))] == kept
            assert pool.manifest["num_skipped"] == 2
            (_, system), (place, reason) = pool.manifest["skipped"]
            assert "refuses the messages" in system
            assert place.endswith("pool.jsonl:3")
            assert reason.startswith("the chat template of the tokeniser")

    def test_a_template_that_no_row_fits_is_refused_at_once(self, run, tmp_path):
        run.config.pool.on_bad_row = "skip"
        run.config.pool.path = str(tmp_path / "pool.jsonl")
        bare = KINDS["llama3"].template.replace("{{ m.content | trim }}", "")
        make_tokenizer(KINDS["llama3"], bare).save_pretrained(tmp_path / "target")
        (tmp_path / "pool.jsonl").write_text("no JSON")  # is never read
        with pytest.raises(
            InputError, match=r"^the chat template of .*changes or drops part of the response"
        ):
            prepare_pool(run, models=("proxy",))

    def test_heldout_rows_follow_the_same_rule(self, run):
        from s2l_jax.pipeline.stages.evaluation import problems_of, tasks_of

        run.config.evaluation.path = run.config.pool.path
        (task,) = tasks_of(run)
        assert [len(problem.row.messages) for problem in problems_of(run, task)] == [2, 4]
        run.config.tokenize.prompt = "plain"
        with pytest.raises(InputError, match=r"pool\.jsonl:2: .* several turns"):
            problems_of(run, task)


def test_example_losses_are_of_the_last_answer(tiny_checkpoint, one_device_mesh):
    """Earlier turns of the assistant are context: the loss is that of the answer after them."""
    from s2l_jax import example_losses, load_model
    from s2l_jax.trajectories.sweep import tokenized_losses

    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.chat_template = UNMARKED
    model = load_model(str(tiny_checkpoint), one_device_mesh)
    talk = [*TestStage.TALK, {"role": "user", "content": "copy b"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": talk}, {"instruction": "copy b", "output": "b"}]
    losses = example_losses(model, tokenizer, rows, prompt="chat", max_length=96)
    prompt = tokenizer("user: q\nassistant: a\nuser: copy b\nassistant: ")["input_ids"]
    ids = np.array([*prompt, *tokenizer("b")["input_ids"], tokenizer.eos_token_id], np.int32)
    by_hand = TokenizedList([TokenizedExample(ids, len(prompt), False, False)])
    options = {"max_length": 96, "dtype": np.float32, "mesh": one_device_mesh}
    np.testing.assert_allclose(losses[:1], tokenized_losses(model, by_hand, **options), atol=5e-6)
    assert losses[0] != losses[1]


class TestPreparedPool:
    SETTINGS = TokenizeSettings("chat", "separate", 64)

    def test_the_fingerprint_follows_the_template(self):
        tokenizers = [
            make_tokenizer(KINDS["chatml"]),
            changed("{{ m.role }}", "{{ m.role | upper }}"),
            make_tokenizer(KINDS["chatml"]),
        ]
        tokenizers[2].bos_token = "<|im_start|>"
        marks = [fingerprint("data", tokenizer, self.SETTINGS) for tokenizer in tokenizers]
        assert len(set(marks)) == 3
        assert fingerprint("data", make_tokenizer(KINDS["chatml"]), self.SETTINGS) == marks[0]
        plain = TokenizeSettings("plain", "separate", 64)
        assert len({fingerprint("data", tokenizer, plain) for tokenizer in tokenizers}) == 1

    def test_rows_of_both_kinds(self, tmp_path):
        tokenizer = TOKENIZERS["llama3"]
        talk = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}] * 2}
        rows = [row_of(talk, "f:1"), row_of({"instruction": "q", "output": "a"}, "f:2")]
        prepare(tmp_path / "pool", lambda: rows, tokenizer, self.SETTINGS)
        pool = PreparedPool(tmp_path / "pool")
        assert list(pool.originals([0, 1])) == [talk, {"instruction": "q", "output": "a"}]
        for tokens, row, masked in zip(pool.read([0, 1]), rows, pool.prompt_lengths, strict=True):
            example = example_of(tokenizer, row)
            assert tokens.tolist() == example.tokens.tolist()
            assert masked == example.prompt_length
