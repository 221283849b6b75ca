"""Programs kept from run to run, and what is said of compiling."""

import os
import re
import stat
import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp
from s2l_jax.parallel.compilation import CompileTime, enable_compilation_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
enable_compilation_cache()
compiling = CompileTime()
jax.jit(lambda x: jnp.sin(x @ x).sum())(jnp.ones((8, 8))).block_until_ready()
compiling.report()
"""


def run(tmp_path, **env):
    inherited = {n: v for n, v in os.environ.items() if n != "JAX_COMPILATION_CACHE_DIR"}
    env = inherited | {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | env
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True, cwd=os.getcwd()
    )
    return done.stderr


def numbers(said):
    found = re.search(r"compiling took .*, \d+% of this run; .* (\d+) were new and (\d+) kept", said)
    assert found, said
    return int(found[1]), int(found[2])


def test_a_second_run_finds_the_programs_of_the_first(tmp_path):
    new, kept = numbers(run(tmp_path))
    assert (new > 0, kept) == (True, 0)
    assert list((tmp_path / "s2l_jax" / "programs").glob("*/*"))
    assert numbers(run(tmp_path)) == (0, new)


@pytest.mark.parametrize("where", ["default", "asked for"])
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_may_write_is_not_used(tmp_path, mode, where):
    if where == "default":
        run(tmp_path)
        (folder,) = (tmp_path / "s2l_jax" / "programs").iterdir()
        said = folder.chmod(mode) or run(tmp_path)
    else:
        folder = tmp_path / "asked"
        folder.mkdir()
        folder.chmod(mode)
        said = run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(folder))
        assert not list(folder.iterdir())
    assert f"compiled programs are not kept: others may write to {folder}" in said
    assert "0 kept from earlier runs" in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_another_users_folder_is_not_used(tmp_path):
    os.chown(tmp_path, 12345, -1)
    said = run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path))
    assert f"not kept: {tmp_path} belongs to another user" in said


def test_a_new_folder_is_this_users_alone(tmp_path):
    run(tmp_path)
    (folder,) = (tmp_path / "s2l_jax" / "programs").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("setting", ["JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_jaxs_own_settings_come_first(tmp_path, setting):
    value = str(tmp_path / "elsewhere") if setting.endswith("DIR") else "false"
    run(tmp_path, **{setting: value})
    assert not (tmp_path / "s2l_jax").exists()
    assert (tmp_path / "elsewhere").exists() == setting.endswith("DIR")
