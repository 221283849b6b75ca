"""The command line: a fault is said in a line, with status 2, and nothing finished is lost."""

import ast
import errno
import json
import os
import subprocess
import sys

import pytest

import launch
from s2l_jax.config import default, load
from s2l_jax.data.datasets.synthetic_tokenizer import write_tokenizer
from s2l_jax.errors import DivergedError, InputError
from s2l_jax.pipeline import run_pipeline
from s2l_jax.pipeline.plan import STAGES, find_stages
from tests.support.paths import REPOSITORY

QUICKSTART = "--config=configs/quickstart.py"


def start(*arguments):
    """Status, standard output and standard error of launch.py."""
    done = subprocess.run(
        [sys.executable, "launch.py", *map(str, arguments)],
        cwd=REPOSITORY,
        env=dict(os.environ) | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def refused(*arguments):
    """The error of a command that must end with status 2 and without a traceback."""
    status, _, error = start(*arguments)
    assert status == 2, error
    assert "Traceback" not in error
    line = error.splitlines()[-1] if error else ""
    assert "error: " in error, line
    return error[error.index("error: ") :]


def test_help_explains_every_stage_and_field():
    status, out, _ = start("--help")
    assert status in (0, 1)  # absl ends with 1
    for stage in STAGES:
        assert stage in out
    for field in ("tokenize.max_length = 512", "selection.runs.<name>.method = 's2l'", "--workdir"):
        assert field in out
    assert "did not match" not in out


class TestFlags:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                [QUICKSTART, "--config.proxy.train.bach_size=3"],
                r"--config.proxy.train.bach_size: no such field; did you mean "
                "'proxy.train.batch_size'?",
            ),
            (
                [QUICKSTART, "--config.selection.runs.s2l.bugdet=3"],
                "--config.selection.runs.s2l.bugdet: no such field; did you mean 'budget'?",
            ),
            (
                [QUICKSTART, "--config.selection.runs.other.budget=3"],
                "runs.other.budget: there is no run 'other', only full, random, random_by_source, s2l; a "
                "config file adds it: config.selection.runs.other = run(method=...).",
            ),
            (
                [QUICKSTART, "--config.selection.runs.other.method=random"],
                "--config.selection.runs.other.method: there is no run 'other'",
            ),
            (
                [
                    QUICKSTART,
                    "--config.selection.runs.s2l.method=forgetting",
                    "--config.selection.runs.s2l.margin=0.1",
                ],
                "runs.s2l.margin: run 's2l' has method 's2l', which has no option 'margin'; forgetting has "
                "it. A config file sets both: config.selection.runs.s2l = run(method='forgetting', "
                "margin=...).",
            ),
            (
                [
                    QUICKSTART,
                    "--config.selection.runs.random.method=semdedup",
                    "--config.selection.runs.random.num_clusters=5",
                ],
                "config.selection.runs.random = run(method='semdedup', num_clusters=...).",
            ),
            (
                [QUICKSTART, "--config.proxies.big.proxy.checkpoint=x"],
                "the config file has no 'big' to override.",
            ),
            (
                [QUICKSTART, "--config.pool.path", "config.jsonl", "--config.seed=0.5"],
                "--config.seed=0.5: invalid literal",
            ),
            (
                [QUICKSTART, "--config.selection.num_clusters=7"],
                "--config.selection.num_clusters: no such field; did you mean 'clustering.num_clusters'?",
            ),
            ([QUICKSTART, "--config.seed=0.5"], "--config.seed=0.5: invalid literal"),
            (
                [QUICKSTART, "--config.evaluation.run_programs=always"],
                "evaluation.run_programs='always': must be one of False, True, unconfined.",
            ),
            ([QUICKSTART, "--config.seed=-3"], "seed=-3: must be 0 or above."),
            (
                [QUICKSTART, "--workdir=/tmp/config.d", "--config.proxy.train.pack=perhaps"],
                "--config.proxy.train.pack=perhaps",
            ),
            (["--config=configs/quick.py"], "--config=configs/quick.py: no such file; there are "),
            (["--config", "no.py", "--config.seed=1"], "--config=no.py: no such file"),
            ([], "--config is missing: name an experiment"),
            ([QUICKSTART, "pool"], "unexpected arguments ['pool']"),
            (
                [QUICKSTART, "--config.trajectories.steps=10,x"],
                "--config.trajectories.steps=10,x: needs whole numbers with commas between: proxy steps",
            ),
            (
                [QUICKSTART, "--config.selection.exports=jsonl,parket"],
                "selection.exports=('jsonl', 'parket'): no export 'parket'; did you mean 'parquet'?",
            ),
            (
                [QUICKSTART, "--config.evaluation.stop=('a', 'b'"],
                "--config.evaluation.stop=('a', 'b': needs texts with commas between: texts",
            ),
            (
                [QUICKSTART, "--config.proxy.keep=params"],
                "--config.proxy.keep: no such field; did you mean 'proxy.save_params'?",
            ),
            ([QUICKSTART, "--wrkdir=x"], "Unknown command line flag 'wrkdir'. Did you mean"),
        ],
    )
    def test_refused(self, arguments, message):
        error = refused(*arguments)
        assert message in error
        assert len(error.splitlines()) == 1

    def test_bad_stages_and_no_workdir_made(self, tmp_path):
        error = refused(QUICKSTART, f"--workdir={tmp_path / 'run'}", "--stages=pool,p")
        assert "--stages: 'p' names pool and proxy; stages are pool, proxy, trajectories" in error
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "from s2l_jax.config import default, run\ndef get_config():\n    return run(metod='s2l')\n",
                "selection run: no field 'metod'; did you mean 'method'?",
            ),
            ("def get_config():\n    return 3\n", "get_config() gives 3; it must return"),
            ("config = 3\n", "has no attribute 'get_config'"),
        ],
    )
    def test_config_files_with_faults(self, tmp_path, text, message):
        (tmp_path / "mine.py").write_text(text)
        assert message in refused(f"--config={tmp_path / 'mine.py'}")


class TestLists:
    @pytest.mark.parametrize(
        ("field", "text", "value"),
        [
            ("selection.exports", "jsonl,parquet", ("jsonl", "parquet")),
            ("selection.exports", " jsonl , parquet ", ("jsonl", "parquet")),
            ("selection.exports", "['parquet']", ("parquet",)),
            ("selection.exports", "", ()),
            ("trajectories.steps", "10,50,200", (10, 50, 200)),
            ("trajectories.steps", "(10, 50)", (10, 50)),
            ("trajectories.steps", "10", (10,)),
            (
                "evaluation.benchmarks",
                "gsm8k=tfds:gsm8k,pool=a b.jsonl",
                ("gsm8k=tfds:gsm8k", "pool=a b.jsonl"),
            ),
            ("evaluation.stop", "42,END", ("42", "END")),
            ("evaluation.stop", r"('\n', 'a, b')", ("\n", "a, b")),
            ("evaluation.stop", r"'\n\n'", ("\n\n",)),
        ],
    )
    @pytest.mark.parametrize("apart", [False, True])
    def test_as_they_are_written(self, field, text, value, apart):
        flag = f"--config.{field}"
        given = launch._with_lists(["launch.py", *([flag, text] if apart else [f"{flag}={text}"]), "--x=a,b"])
        assert given[-1] == "--x=a,b"
        assert ast.literal_eval(given[2] if apart else given[1].partition("=")[2]) == value

    def test_reach_the_config(self, tmp_path):
        """`--config.name` is refused last, after the lists have been taken."""
        file = tmp_path / "mine.py"
        file.write_text("from s2l_jax.config import default as get_config\n")
        given = ["--config.evaluation.stop=a,b", "--config.clustering.compare=5,5"]
        assert "clustering.compare=(5, 5): must be different" in refused(f"--config={file}", *given)


class TestStages:
    def test_names_and_beginnings_in_any_order(self):
        assert find_stages(["sel", "proxy"]) == ["proxy", "selection"]
        assert find_stages(STAGES) == list(STAGES)
        assert find_stages(["e", "e", "evaluation"]) == ["evaluation"]

    @pytest.mark.parametrize("name", ["", "p", "t", "nothing", "Pool", "pooling"])
    def test_others(self, name):
        with pytest.raises(InputError, match="stages are pool, proxy"):
            find_stages([name])


class TestStatus:
    @pytest.mark.parametrize(
        ("error", "status", "said"),
        [
            (InputError("row 3 is bad"), 2, "error: row 3 is bad"),
            (DivergedError("step 3"), 3, "stopped: step 3"),
            (
                OSError(errno.ENOSPC, "No space left", "run/a.json"),
                4,
                "'run/a.json'. What was finished before",
            ),
            (OSError(errno.ENOSPC, "No space left"), 4, "make room, then run it again."),
            (
                OSError("the column was not written"),
                4,
                "not written. What was finished before is intact; run",
            ),
            (
                OSError("run/p: the checkpoint was not written (ValueError: No space left on device)"),
                4,
                "make room",
            ),
            (OSError("run/owner.json could not be written (Permission denied)"), 2, "Put that right"),
            (ConnectionResetError("reset"), 4, "run it again"),
            (
                PermissionError(errno.EACCES, "Permission denied", "run/a.json"),
                2,
                "'run/a.json'. Put that right",
            ),
            (FileNotFoundError(errno.ENOENT, "No such file", "a.json"), 2, "'a.json'. Put that right"),
            (OSError(errno.EROFS, "Read-only file system", "run"), 2, "'run'. Put that right"),
            (OSError(errno.ENAMETOOLONG, "File name too long", "run"), 2, "'run'. Put that right"),
            (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
            (OSError("\x1b[2J"), 4, r"error: \x1b[2J."),
            (ImportError("Please install gcsfs to access Google Storage"), 2, "pip install gcsfs"),
            (type("HttpError", (Exception,), {"__module__": "gcsfs.retry"})("503"), 4, "store failed (503)"),
        ],
    )
    def test_of_errors(self, monkeypatch, capsys, error, status, said):
        def fails(argv):
            raise error

        monkeypatch.setattr(launch, "main", fails)
        assert launch._guarded(["launch.py"]) == status
        assert said in capsys.readouterr().err

    def test_says_where_it_was(self, monkeypatch, capsys):
        def fails(argv):
            error = InputError("a row is bad")
            error.add_note("This was in selection.runs.mine.")
            raise error

        monkeypatch.setattr(launch, "main", fails)
        assert launch._guarded(["launch.py"]) == 2
        assert "error: a row is bad\nThis was in selection.runs.mine." in capsys.readouterr().err

    @pytest.mark.parametrize("kind", [RuntimeError, ImportError])
    def test_of_a_bug_is_a_traceback(self, monkeypatch, kind):
        def fails(argv):
            raise kind("a bug")

        monkeypatch.setattr(launch, "main", fails)
        with pytest.raises(kind):
            launch._guarded(["launch.py"])


class TestBadInput:
    """One workdir, put right step by step; `run_pipeline` raises what the command prints."""

    @pytest.fixture
    def config(self, tmp_path):
        model = tmp_path / "model"
        write_tokenizer(model)
        hf_config = REPOSITORY / "s2l_jax" / "data" / "datasets" / "base" / "proxy" / "config.json"
        (model / "config.json").write_text(hf_config.read_text())
        config = load("quickstart")
        config.proxy.checkpoint = str(model)
        config.pool.path = str(tmp_path / "pool.jsonl")
        config.trajectories.every = 5
        return config

    def test_earlier_artifacts_stay(self, config, tmp_path):
        workdir, pool = tmp_path / "run", tmp_path / "pool.jsonl"
        with pytest.raises(InputError, match=r"pool\.jsonl does not exist"):
            run_pipeline(config, workdir, stages=["pool"])

        rows = [{"instruction": f"copy {n}", "output": str(n)} for n in range(40)]
        lines = [json.dumps(row) for row in rows]
        pool.write_text("\n".join([*lines[:6], '{"instruction": "cop', *lines[6:]]))
        with pytest.raises(InputError, match=r"pool\.jsonl:7: .*Correct the row"):
            run_pipeline(config, workdir, stages=["pool"])

        # Put right, the same command goes on in the same workdir.
        pool.write_text("\n".join(lines))
        results = run_pipeline(config, workdir, stages=["pool"])
        assert results["pool"]["num_examples"] == 40
        before = contents(workdir / "pool")
        assert any(name.endswith("manifest.json") for name in before)

        with pytest.raises(InputError, match=r"model.*safetensors"):
            run_pipeline(config, workdir, stages=["proxy"])
        assert contents(workdir / "pool") == before
        assert json.loads((workdir / "results.json").read_text()) == results

        # What a finished part was made of may not change any more.
        pool.write_text("\n".join(lines[:-1]))
        with pytest.raises(InputError, match=r"other settings:\n  pool\.content: 'pool\.jsonl:"):
            run_pipeline(config, workdir, stages=["pool"])
        assert contents(workdir / "pool") == before

    def test_on_the_command_line(self, tmp_path):
        pool = tmp_path / "pool.jsonl"
        pool.write_text('{"instruction": "copy a", "output": "a"}\n{"instruction": "copy b"}\n')
        run = [QUICKSTART, f"--workdir={tmp_path / 'run'}", f"--config.pool.path={pool}"]
        error = refused(*run, "--stages=pool")
        assert f'{pool}:2: has no field "output"' in error


def contents(folder):
    return {str(f): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_template_that_fills_max_length_is_refused_before_any_row_is_read(tiny_checkpoint, tmp_path):
    config = default()
    config.proxy.checkpoint = str(tiny_checkpoint)
    config.pool.path = "synthetic"
    config.tokenize.max_length = 40
    with pytest.raises(InputError, match=r"max_length=40 leaves no room .*'alpaca' alone has"):
        run_pipeline(config, tmp_path, stages=["pool"])
    assert not list((tmp_path / "pool").glob("*/manifest.json"))
