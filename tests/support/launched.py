"""The small pipeline of `pipeline_kills` as commands, for tests that signal, kill and pair them."""

import json
import os
import subprocess
import sys

from tests.support.paths import REPOSITORY


class Commands:
    """Starts `launch.py` on the small config; all commands share compiled programs."""

    def __init__(self, folder, checkpoint):
        self.folder, self._running = folder, []
        self._config = folder / "small.py"
        self._config.write_text(
            "from tests.support.pipeline_kills import small_config\n"
            f"def get_config():\n    return small_config({str(checkpoint)!r})\n"
        )
        (folder / "programs").mkdir(mode=0o700)

    def start(self, workdir, *arguments):
        process = subprocess.Popen(
            [sys.executable, "launch.py", f"--config={self._config}", f"--workdir={workdir}", *arguments],
            cwd=REPOSITORY,
            env=os.environ
            | {
                "PYTHONPATH": str(REPOSITORY),
                "XLA_FLAGS": "",
                "JAX_COMPILATION_CACHE_DIR": str(self.folder / "programs"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def end(self, process):
        """Wait for a command; its status and what it said, in which there is never a traceback."""
        out, said = process.communicate(timeout=600)
        assert "Traceback" not in out + said, said
        return process.returncode, said

    def run(self, workdir, *arguments):
        return self.end(self.start(workdir, *arguments))

    def close(self):
        for process in self._running:
            process.kill()
            process.communicate()


def made(workdir):
    """What the same config always gives: numbers, subsets, models and answers."""
    results = json.loads((workdir / "results.json").read_text())
    results.pop("timing")
    patterns = ("selection/*/indices.npy", "target/*/hf/*.safetensors", "evaluation/*/*/predictions.jsonl")
    files = sorted(file for pattern in patterns for file in workdir.glob(pattern))
    return results, {str(file.relative_to(workdir)): file.read_bytes() for file in files}


def leftovers(workdir):
    """Files of writes that were not finished, and of an owner that is gone."""
    return [file for file in workdir.rglob("*") if file.name.endswith(".tmp") or file.name == "owner.json"]
