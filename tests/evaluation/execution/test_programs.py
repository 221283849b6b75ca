"""Programs of models: run right, in order, repeatably, and each for itself."""

import json
import tempfile

import pytest

from s2l_jax import evaluation
from s2l_jax.evaluation.execution.programs import ProgramPool
from s2l_jax.evaluation.grading.grader import Grader
from tests.support.sandbox import confined_pool, run_one


@pytest.fixture(scope="module")
def pool():
    with confined_pool() as pool:
        yield pool


def test_calculation(pool):
    codes = [
        "import math\nprint(math.comb(10, 3))",
        "import numpy as np\nprint(np.linalg.solve([[2, 0], [0, 4]], [1, 2]).tolist())",
        "import sympy\nx = sympy.symbols('x')\nprint(sympy.solve(x**2 - 5*x + 6, x))",
        "def solution():\n    return 3 / 4\nif __name__ == '__main__':\n    print(solution())",
        "from scipy.stats import norm\nprint(norm.cdf(0.0))",
        "from fractions import Fraction\nimport statistics, itertools, decimal, re\nprint(Fraction(1, 3))",
        "import threading\nt = threading.Thread(target=lambda: print('in a thread'))\nt.start()\nt.join()",
        "open('note', 'w').write('kept')\nprint(open('note').read())",
        "",
    ]
    results = pool.run(codes)
    assert [result.error for result in results] == [""] * len(codes)
    assert all(result.ok for result in results)
    expected = ["120", "[0.5, 0.5]", "[2, 3]", "0.75", "0.5", "1/3", "in a thread", "kept", ""]
    assert [result.stdout.strip() for result in results] == expected


def test_one_program_by_itself():
    confined_pool().close()
    result = evaluation.run_program("print('é', 2**10)", timeout=20)
    assert (result.stdout, result.ok, result.error) == ("é 1024\n", True, "")
    assert 0 < result.seconds < 20


def test_results_come_in_the_order_of_the_programs():
    confined_pool().close()
    codes = [f"import time\ntime.sleep({0.05 if n % 4 == 0 else 0})\nprint({n})" for n in range(12)]
    with ProgramPool(2) as pool:
        assert [int(result.stdout) for result in pool.run(codes)] == list(range(12))
        assert pool.run([]) == []
        pool.close()
        assert pool.run(["print(1)"])[0].stdout == "1\n"


def test_the_same_program_prints_the_same(pool):
    code = "import random, numpy\nprint(random.random(), numpy.random.rand(), {'a', 'b', 'c', 'd'})"
    first, second = pool.run([code, code])
    assert first.ok
    assert first.stdout == second.stdout


def test_a_program_ends_as_an_interpreter_would(pool):
    code = """
import atexit, threading, time
atexit.register(print, 'registered')
threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()
print(__name__, __file__)
"""
    assert run_one(pool, code).stdout == "__main__ program.py\nthread\nregistered\n"
    waits = "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()"
    assert run_one(pool, waits, timeout=0.3).error == "ran longer than 0.3 s"


def test_a_program_cannot_move_its_own_folder_away(pool):
    for code in ("os.rename(os.getcwd(), os.getcwd() + '2')", "os.rmdir(os.getcwd())"):
        assert "Error" in run_one(pool, f"import os\n{code}").error


def test_a_program_without_confinement_that_moves_its_folder_away(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # what is moved away is left to the next process
    with ProgramPool(1, confined=False) as pool:
        for code in (
            "os.rename(os.getcwd(), os.getcwd() + '2')",
            "os.rmdir(os.getcwd())",
            "os.rmdir(os.getcwd())\nos.symlink('/', p)",
        ):
            result = run_one(pool, f"import os\np = os.getcwd()\n{code}")
            assert "process died" not in result.error
        assert pool.run(["import os\nprint(os.listdir('.'))"])[0].stdout == "[]\n"


def test_nothing_is_kept_from_one_program_to_the_next(pool):
    change = "import math, sympy\nmath.pi = 3\nsympy.pi = 3\nopen('left', 'w').write('x')\nleft = 1"
    assert run_one(pool, change).ok
    look = "import math, os, sympy\nprint(math.pi > 3, sympy.pi, os.listdir('.'), 'left' in globals())"
    assert pool.run([look])[0].stdout == "True pi [] False\n"


@pytest.mark.parametrize(
    ("code", "ok", "error"),
    [
        ("import sys\nprint(1)\nsys.exit()", True, ""),
        ("import sys\nsys.exit(0)", True, ""),
        ("import sys\nsys.exit(3)", False, "exited with status 3"),
        ("import sys\nsys.exit('no solution')", False, "no solution"),
        ("import os\nos._exit(7)", False, "exited with status 7"),
        ("1 / 0", False, "ZeroDivisionError: division by zero"),
        ("x = (", False, "SyntaxError: '(' was never closed"),
        ("input()", False, "EOFError: EOF when reading a line"),
        ("print(undefined)", False, "NameError: name 'undefined' is not defined"),
        ("raise KeyboardInterrupt", False, "KeyboardInterrupt"),
        ("raise ValueError('no\\nroot')", False, "ValueError: no root"),
        (
            "import sys\nsys.stderr.write('x')\nraise ValueError('a' * 10**4)",
            False,
            "ValueError: " + "a" * 488,
        ),
        ("raise ValueError('\x1b[2Jgone\u202e')", False, "ValueError: \\x1b[2Jgone\\u202e"),
        ("exit('no solution')", False, "no solution"),
        ("import os\nos.close(1)\nprint(1)", False, "what it printed could not be written"),
        ("import missing_package", False, "ModuleNotFoundError: No module named 'missing_package'"),
        ("import os\nos.kill(os.getpid(), 11)", False, "killed by SIGSEGV"),
    ],
)
def test_the_error_of_a_program(pool, code, ok, error):
    result = run_one(pool, code)
    assert result.ok == ok
    assert result.error == error


def test_a_message_that_a_program_makes_up_is_only_text(pool):
    result = run_one(
        pool, "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", timeout=0.3
    )
    assert result.error == "ran longer than 0.3 s"
    assert "�" in run_one(pool, "import os\nos.write(1, b'\\xff\\xfe')").stdout


@pytest.mark.parametrize(
    "code", ["\0", "print('a\0b')", "\ud800", "print('\ud800')", "\u202eprint(1)", "\xff", "é = 1\nprint(é"]
)
def test_odd_characters_in_a_program_are_an_error(pool, code):
    result = run_one(pool, code)
    assert not result.ok
    assert "Error" in result.error


def test_odd_characters_that_a_program_prints(pool):
    assert run_one(pool, "print('\\0 é 漢 🙂')").stdout == "\0 é 漢 🙂\n"
    assert not run_one(pool, "print('\\ud800')").ok


def test_every_svamp_equation_as_a_program(data_dir):
    confined_pool().close()
    rows = json.loads((data_dir / "eval" / "svamp.json").read_text())
    assert len(rows) == 1000
    with ProgramPool() as pool:
        results = pool.run([f"result = {row['Equation']}\nprint(result)" for row in rows])
    with Grader(1) as grader:
        references = [str(row["Answer"]) for row in rows]
        verdicts = grader.grade("number", [result.stdout for result in results], references)
    wrong = [row["ID"] for row, verdict in zip(rows, verdicts, strict=True) if not verdict.correct]
    # The data has 1 as the answer of (4 - 2) + 3; its question asks for 5.
    assert wrong == ["chal-680"]
    assert all(result.ok for result in results)
