"""Trajectories from the official code's checkpoints and from Parquet."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import s2l_jax
from s2l_jax.data.identity import data_identity
from s2l_jax.errors import InputError
from s2l_jax.trajectories import parquet_file
from s2l_jax.trajectories.load import files_of, load_trajectories

LOSSES = np.random.default_rng(0).uniform(0, 9, (6, 3)).astype(np.float32)
STEPS = [500, 1000, 12000]  # sorted by name, 12000 would come second
IDS = np.array([2**64 - 1, 5, 0, 2**63, 17, 1], np.uint64)


class TestOfficialCheckpoints:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    def write(self, torch, path, losses=LOSSES, save=None):
        """What get_trajectories.py saves: a list of scalar tensors per checkpoint."""
        for step, column in zip(STEPS, losses.T, strict=True):
            folder = path / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            as_saved = save or (lambda column: [torch.tensor(loss) for loss in column])
            torch.save(as_saved(column), folder / "losses.pt")
        return path

    def test_what_the_official_code_writes(self, torch, tmp_path):
        self.write(torch, tmp_path)
        (tmp_path / "checkpoint-500" / "model.safetensors").write_bytes(b"weights")
        (tmp_path / "runs").mkdir()
        (tmp_path / "trainer_state.json").write_text("{}")
        loaded = s2l_jax.load_trajectories(tmp_path)
        assert np.array_equal(loaded.losses, LOSSES)
        assert (loaded.losses.dtype, loaded.losses.flags.c_contiguous) == (np.float32, True)
        assert (loaded.steps.tolist(), loaded.steps.dtype) == (STEPS, np.int64)
        assert loaded.ids is None
        assert len(s2l_jax.select(loaded.losses, budget=4, num_clusters=2).indices) == 4

    @pytest.mark.parametrize("kind", ["tensor", "double", "bfloat16", "floats", "list of bfloat16"])
    def test_other_lists_and_tensors(self, torch, tmp_path, kind):
        save = {
            "tensor": torch.tensor,
            "double": lambda column: torch.tensor(column, dtype=torch.float64),
            "bfloat16": lambda column: torch.tensor(column, dtype=torch.bfloat16),
            "floats": lambda column: column.tolist(),
            "list of bfloat16": lambda column: [torch.tensor(x, dtype=torch.bfloat16) for x in column],
        }[kind]
        loaded = load_trajectories(self.write(torch, tmp_path, save=save))
        if "bfloat16" in kind:
            assert np.array_equal(loaded.losses, torch.tensor(LOSSES).bfloat16().float().numpy())
        else:
            assert np.array_equal(loaded.losses, LOSSES)

    def test_rows_without_a_response_become_zeros(self, torch, tmp_path):
        losses = LOSSES.copy()
        losses[[1, 4]] = np.nan
        loaded = load_trajectories(self.write(torch, tmp_path, losses))
        assert not loaded.losses[[1, 4]].any()
        assert np.array_equal(loaded.losses[[0, 2, 3, 5]], LOSSES[[0, 2, 3, 5]])

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_diverged_checkpoint_is_named(self, torch, tmp_path, value):
        losses = LOSSES.copy()
        losses[2, 1] = value
        self.write(torch, tmp_path, losses)
        with pytest.raises(InputError, match=rf"checkpoint-1000/losses.pt: 1 losses .* row 2 .* {value}"):
            load_trajectories(tmp_path)

    def test_infinite_everywhere_is_no_missing_response(self, torch, tmp_path):
        losses = LOSSES.copy()
        losses[2] = np.inf
        self.write(torch, tmp_path, losses)
        with pytest.raises(InputError, match=r"checkpoint-500/losses.pt: 1 losses"):
            load_trajectories(tmp_path)

    def test_missing_files_are_named(self, torch, tmp_path):
        self.write(torch, tmp_path)
        (tmp_path / "checkpoint-1000" / "losses.pt").unlink()
        (tmp_path / "checkpoint-12000" / "losses.pt").unlink()
        with pytest.raises(InputError, match=r"no losses.pt in checkpoint-1000, checkpoint-12000"):
            load_trajectories(tmp_path)

    def test_another_length(self, torch, tmp_path):
        self.write(torch, tmp_path)
        torch.save([torch.tensor(1.0)] * 5, tmp_path / "checkpoint-1000" / "losses.pt")
        with pytest.raises(InputError, match=r"checkpoint-1000/losses.pt: holds 5 .* step 500 holds 6"):
            load_trajectories(tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (lambda torch: {"losses": torch.zeros(6)}, "it is a dict"),
            (lambda torch: torch.zeros(6, 1), r"shape \[6, 1\]"),
            (lambda torch: torch.zeros(6, dtype=torch.int32), "torch.int32"),
            (lambda torch: [torch.zeros(2)] * 6, "not a list of losses"),
            (lambda torch: ["a"] * 6, "not a list of losses"),
            (lambda torch: LOSSES[:, 1], "not a list of losses"),  # NumPy is unpickled by code
        ],
    )
    def test_other_contents(self, torch, tmp_path, content, message):
        self.write(torch, tmp_path)
        torch.save(content(torch), tmp_path / "checkpoint-1000" / "losses.pt")
        with pytest.raises(InputError, match=message) as error:
            load_trajectories(tmp_path)
        assert "checkpoint-1000/losses.pt" in str(error.value)

    @pytest.mark.parametrize("kept", [0, 100, 2000])
    def test_cut_files(self, torch, tmp_path, kept):
        file = self.write(torch, tmp_path) / "checkpoint-1000" / "losses.pt"
        file.write_bytes(file.read_bytes()[:kept])
        with pytest.raises(InputError, match=r"checkpoint-1000/losses.pt: not a list"):
            load_trajectories(tmp_path)

    def test_code_in_a_file_is_not_run(self, torch, tmp_path):
        class Trap:
            def __reduce__(self):
                return exec, ("raise SystemExit('ran')",)

        self.write(torch, tmp_path)
        torch.save(Trap(), tmp_path / "checkpoint-500" / "losses.pt")
        with pytest.raises(InputError, match=r"checkpoint-500/losses.pt: not a list"):
            load_trajectories(tmp_path)

    def test_a_pytorch_whose_weights_only_was_escaped_from(self, torch, tmp_path, monkeypatch):
        self.write(torch, tmp_path)
        monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1+cpu"))
        with pytest.raises(
            InputError, match=r"losses.pt: reading it with PyTorch 2\.9\.1\+cpu .*torch>=2\.10"
        ):
            load_trajectories(tmp_path)

    def test_no_losses_at_all(self, torch, tmp_path):
        self.write(torch, tmp_path, LOSSES[:0])
        with pytest.raises(InputError, match=r"shape \(0, 3\): there is nothing"):
            load_trajectories(tmp_path)

    def test_one_step_twice(self, torch, tmp_path):
        self.write(torch, tmp_path)
        (tmp_path / "checkpoint-0500").mkdir()
        torch.save(LOSSES[:, 0].tolist(), tmp_path / "checkpoint-0500" / "losses.pt")
        with pytest.raises(InputError, match="each above the one before"):
            load_trajectories(tmp_path)

    def test_without_pytorch_the_message_says_what_to_install(self, tmp_path, monkeypatch):
        (tmp_path / "checkpoint-500").mkdir()
        (tmp_path / "checkpoint-500" / "losses.pt").write_bytes(b"")
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(InputError, match="pip install torch"):
            load_trajectories(tmp_path)

    def test_what_tells_them_from_others(self, torch, tmp_path):
        """The losses of every checkpoint, and not the weights beside them."""
        self.write(torch, tmp_path)
        before = data_identity(files_of(str(tmp_path)))
        assert before.count("losses.pt:") == 3
        (tmp_path / "checkpoint-500" / "optimizer.pt").write_bytes(b"moments")
        assert data_identity(files_of(str(tmp_path))) == before
        torch.save([0.0] * 6, tmp_path / "checkpoint-500" / "losses.pt")
        assert data_identity(files_of(str(tmp_path))) != before

    def test_revisions_of_the_hub(self, torch, tmp_path):
        """What it saves into hf_outputs for EleutherAI/pythia-70m-deduped and steps of it."""
        for step, column in zip(STEPS, LOSSES.T, strict=True):
            name = f"EleutherAI_pythia-70m-deduped@{'step' if step == 500 else ''}{step}_losses.pt"
            torch.save([torch.tensor(loss) for loss in column], tmp_path / name)
        torch.save(
            [torch.tensor(0.0)] * 6, tmp_path / "EleutherAI_pythia-70m-deduped_losses.pt"
        )  # of no step
        loaded = load_trajectories(tmp_path)
        assert np.array_equal(loaded.losses, LOSSES)
        assert loaded.steps.tolist() == STEPS
        assert data_identity(files_of(str(tmp_path))).count("_losses.pt:") == 3
        torch.save([0.0] * 6, tmp_path / "other_model@1_losses.pt")
        with pytest.raises(
            InputError, match=r"losses of EleutherAI_pythia-70m-deduped and other_model: .* one model"
        ):
            load_trajectories(tmp_path)

    def test_folders_without_checkpoints(self, tmp_path):
        (tmp_path / "checkpoint-best").mkdir()
        (tmp_path / "checkpoint-500").write_text("a file")
        with pytest.raises(InputError, match=r"no zarr.json there, nor folders checkpoint-<step>"):
            load_trajectories(tmp_path)


def write_parquet(path, columns, metadata=None):
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path, row_group_size=4)
    return path


def by_step(losses=LOSSES, kind=np.float32):
    """Columns in the order of their names, which is not that of their numbers."""
    named = {f"step_{step}": column.astype(kind) for step, column in zip(STEPS, losses.T, strict=True)}
    return dict(sorted(named.items()))


LISTS = pa.array(LOSSES.tolist(), pa.list_(pa.float32()))


class TestParquet:
    @pytest.fixture(autouse=True)
    def small_batches(self, monkeypatch):
        monkeypatch.setattr(parquet_file, "_BATCH", 3)

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_a_column_per_step(self, tmp_path, kind):
        columns = {"id": IDS, "text": ["x"] * 6} | by_step(kind=kind)
        assert list(columns)[2:] == ["step_1000", "step_12000", "step_500"]
        loaded = s2l_jax.load_trajectories(write_parquet(tmp_path / "t.parquet", columns))
        assert loaded.losses.dtype == np.float32
        assert np.array_equal(loaded.losses, LOSSES.astype(kind).astype(np.float32))
        assert (loaded.steps.tolist(), loaded.steps.dtype) == (STEPS, np.int64)
        assert np.array_equal(loaded.ids, IDS)

    @pytest.mark.parametrize(
        "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 3)]
    )
    def test_lists(self, tmp_path, kind):
        columns = {"losses": pa.array(LOSSES.tolist(), kind)}
        loaded = load_trajectories(write_parquet(tmp_path / "t.parquet", columns))
        assert np.array_equal(loaded.losses, LOSSES)
        assert loaded.steps.tolist() == [1, 2, 3]
        assert loaded.ids is None

    def test_steps_of_lists(self, tmp_path):
        path = write_parquet(tmp_path / "t.parquet", {"losses": LISTS}, {"steps": json.dumps(STEPS)})
        assert load_trajectories(path).steps.tolist() == STEPS

    def test_written_by_pandas(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"losses": LOSSES.tolist(), "id": IDS[1:3].tolist() * 3})
        frame.to_parquet(tmp_path / "t.parquet")
        loaded = load_trajectories(tmp_path / "t.parquet")
        assert np.array_equal(loaded.losses, LOSSES)
        assert loaded.ids.tolist() == [5, 0] * 3

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"loss": LOSSES[:, 0]}, "has the columns loss; needs either"),
            ({"losses": LISTS} | by_step(), "losses, step_1000, .* needs either"),
            ({"losses": LOSSES[:, 0]}, "`losses` has the type float; lists of floats are needed"),
            ({"losses": pa.array([[1], [2]])}, r"type list<.*int64>; lists of floats"),
            ({"losses": pa.array([[1.0, 2], [1], [2, 3]])}, r"row 1 \(from 0\) has 1 losses, row 0 has 2"),
            ({"losses": pa.array([[1.0]] * 4 + [[1.0, 2]])}, r"row 4 \(from 0\) has 2 losses"),
            ({"losses": pa.array([[1.0, 2]] * 4 + [[1.0, None]])}, r"row 4 \(from 0\) has no value"),
            ({"losses": pa.array([[1.0, 2]] * 4 + [None])}, r"row 4 \(from 0\) has no value"),
            ({"losses": pa.array([[], []], pa.list_(pa.float32()))}, r"shape \(2, 0\): there is nothing"),
            ({"step_5": [1.0, 2, 3, None]}, r"row 3 \(from 0\) has no value in the column `step_5`"),
            ({"step_5": [1, 2]}, "`step_5` has the type int64; floats"),
            ({"step_5": pa.array([], pa.float32())}, r"shape \(0, 1\): there is nothing"),
            ({"step_5": [1.0], "step_05": [1.0]}, "each above the one before"),
            ({"step_5": [1.0, 2], "id": ["a", "b"]}, "`id` has the type string; whole numbers"),
            ({"step_5": [1.0, 2], "id": [1, None]}, r"row 1 \(from 0\) has no value in the column `id`"),
            ({"step_5": [1.0, 2], "id": [1, -1]}, "at least 0"),
        ],
    )
    def test_bad_columns(self, tmp_path, columns, message):
        path = write_parquet(tmp_path / "t.parquet", columns)
        with pytest.raises(InputError, match=message) as error:
            load_trajectories(path)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize(
        ("steps", "message"),
        [
            ("500, 1000", "`steps` is '500, 1000'; a JSON list"),
            ("[1, 2]", r"3 columns .* shape \(2,\)"),
            ("[3, 2, 1]", "each above"),
            ('["a", "b", "c"]', "type <U1"),
            ("[[1], [2, 3]]", "a JSON list"),
        ],
    )
    def test_bad_steps(self, tmp_path, steps, message):
        path = write_parquet(tmp_path / "t.parquet", {"losses": LISTS}, {"steps": steps})
        with pytest.raises(InputError, match=message):
            load_trajectories(path)

    @pytest.mark.parametrize("kept", [0, 10, -20])
    def test_cut_files(self, tmp_path, kept):
        path = write_parquet(tmp_path / "t.parquet", by_step())
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(InputError, match="not a readable Parquet file"):
            load_trajectories(path)


class TestNumpy:
    @pytest.mark.parametrize("kind", [np.uint64, np.uint8, np.int64, np.float32])
    def test_steps_that_go_down(self, tmp_path, kind):
        np.savez(tmp_path / "t.npz", losses=np.ones((2, 3), np.float32), steps=np.array([5, 4, 3], kind))
        with pytest.raises(InputError, match="each above the one before"):
            load_trajectories(tmp_path / "t.npz")

    @settings(max_examples=40, deadline=None)
    @given(
        losses=hnp.arrays(
            st.sampled_from(["<f2", "<f4", ">f4", "<f8", ">f8"]),
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
            elements=st.floats(0, 100, width=16),
        ),
        by_column=st.booleans(),
        compressed=st.booleans(),
    )
    def test_any_layout(self, tmp_path_factory, losses, by_column, compressed):
        folder = tmp_path_factory.mktemp("npy")
        stored = np.asfortranarray(losses) if by_column else losses
        np.save(folder / "t.npy", stored)
        save = np.savez_compressed if compressed else np.savez
        save(folder / "t.npz", losses=stored, steps=np.arange(losses.shape[1]) * 2**40, other=np.array("x"))
        loaded = [load_trajectories(folder / name) for name in ("t.npy", "t.npz")]
        for each in loaded:
            assert each.losses.dtype == np.float32
            assert each.losses.flags.c_contiguous
            assert np.array_equal(each.losses, losses.astype(np.float32))
        assert loaded[1].steps.tolist() == [2**40 * place for place in range(losses.shape[1])]
