"""HumanEval and MBPP: rows made here, and all the real ones."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.code.answers import cut, first_block
from aya_jax.evaluation.code.problems import (
    HUMANEVAL_STOP,
    CodeProblem,
    load_humaneval,
    load_mbpp,
    mbpp_few_shot,
    mbpp_test_split,
)
from aya_jax.evaluation.code.sandbox import run_program, run_programs

HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "from typing import List\n\n\ndef helper(x):\n    return x + 1\n\n\n"
    'def after(xs: List[int]) -> List[int]:\n    """ Add one with helper.\n    """\n',
    "entry_point": "after",
    "canonical_solution": "    return [helper(x) for x in xs]\n",
    "test": "\n\ndef check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n",
}
SANITIZED = {
    "source_file": "x.ipynb",
    "task_id": 11,
    "prompt": "Write a function to square a number.",
    "code": "import math\r\ndef square(x):\r\n  return x * x",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(square(2), 4)", "assert square(3) == 9"],
}
FULL = {
    "text": "Write a function to square a number.",
    "code": "def square(x):\r\n  return x * x",
    "task_id": 12,
    "test_setup_code": "two = 2",
    "test_list": ["assert square(two) == 4"],
    "challenge_test_list": ["assert square(1) == 2"],
}


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return file


def one(folder: Path, load: Callable[[Path], tuple[CodeProblem, ...]], row: Any) -> CodeProblem:
    (problem,) = load(write(folder, row))
    return problem


class TestHumanEval:
    def test_a_row(self, tmp_path: Path) -> None:
        problem = one(tmp_path, load_humaneval, HUMANEVAL)
        assert (problem.id, problem.entry_point, problem.prompt) == ("HumanEval/0", "after", HUMANEVAL["prompt"])
        assert problem.solution.startswith("def after(")
        assert f"```python\n{HUMANEVAL['prompt'].strip()}\n```" in problem.question
        assert run_program(problem.program(problem.solution)).passed

    @pytest.mark.parametrize(
        ("completion", "passes"),
        [
            ("    return [helper(x) for x in xs]\n", True),
            ("    return [helper(x) for x in xs]\n\n\ndef more():\n    this is no Python", True),
            ("    return [helper(x) for x in xs]\nprint(nonsense", True),
            ("    return [helper(x) for x in xs]\n# and so on\n)", True),
            ("    return xs\n", False),
            ("    pass", False),
            ("", False),
        ],
    )
    def test_completions(self, completion: str, passes: bool, tmp_path: Path) -> None:
        assert run_program(one(tmp_path, load_humaneval, HUMANEVAL).completed(completion)).passed == passes

    @pytest.mark.parametrize(
        ("answer", "passes"),
        [
            ("Sure!\n```python\ndef after(xs):\n    return [helper(x) for x in xs]\n```\nIt adds one.", True),
            ("```\ndef after(xs: List[int]):\n    return [x + 1 for x in xs]\n```", True),
            ("```python\n    return [helper(x) for x in xs]\n```", True),
            ("def after(xs):\n    return [x + 1 for x in xs]", True),
            ("after = lambda xs: [x + 1 for x in xs]", True),
            (
                "```python\ndef after(xs): return xs\n```\n```python\ndef after(xs): return [helper(x) for x in xs]\n```",
                False,
            ),
            ("```python\ndef before(xs):\n    return xs\n```", False),
            ("I cannot do that.", False),
        ],
    )
    def test_answers(self, answer: str, passes: bool, tmp_path: Path) -> None:
        assert run_program(one(tmp_path, load_humaneval, HUMANEVAL).answered(answer)).passed == passes


class TestMbpp:
    @pytest.mark.parametrize(("row", "name"), [(SANITIZED, "MBPP/11"), (FULL, "MBPP/12")])
    def test_a_row(self, row: dict[str, Any], name: str, tmp_path: Path) -> None:
        problem = one(tmp_path, load_mbpp, row)
        assert (problem.id, problem.entry_point) == (name, "square")
        assert "\r" not in problem.solution
        assert run_program(problem.program(problem.solution)).passed
        assert not run_program(problem.program("def square(x): return x")).passed
        assert run_program(problem.completed("def square(x): return x * x\n[DONE]\nYou are an expert")).passed
        assert run_program(problem.answered("So:\n```py\ndef square(x): return x * x\n```")).passed
        assert all(test in problem.question for test in row["test_list"])

    def test_setup_that_is_empty_or_missing(self, tmp_path: Path) -> None:
        row = {**FULL, "test_list": ["assert square(2) == 4"]}
        for setup in ({"test_setup_code": ""}, {}):
            problem = one(
                tmp_path, load_mbpp, {name: value for name, value in row.items() if name != "test_setup_code"} | setup
            )
            assert problem.tests == "assert square(2) == 4"

    def test_the_prompt_of_the_paper(self, tmp_path: Path) -> None:
        rows = [{**SANITIZED, "task_id": number, "prompt": f"Task {number}."} for number in (4, 2, 3, 11)]
        problems = load_mbpp(write(tmp_path, *rows))
        tests = "assert math.isclose(square(2), 4)\nassert square(3) == 9\n"
        head = "You are an expert Python programmer, and here is your task: Task {}. Your code should pass these tests:\n\n"
        solved = "[BEGIN]\nimport math\ndef square(x):\n  return x * x\n[DONE]\n\n"
        shots = "".join(head.format(number) + tests + solved for number in (2, 3, 4))
        assert mbpp_few_shot(problems[3], problems) == shots + head.format(11) + tests + "[BEGIN]\n"
        with pytest.raises(UserError, match="one of the three"):
            mbpp_few_shot(problems[0], problems)
        with pytest.raises(UserError, match="MBPP/2"):
            mbpp_few_shot(problems[3], problems[:1])

    def test_the_test_split(self, tmp_path: Path) -> None:
        rows = [{**SANITIZED, "task_id": number} for number in (2, 10, 11, 510, 511, 974)]
        assert [problem.id for problem in mbpp_test_split(load_mbpp(write(tmp_path, *rows)))] == ["MBPP/11", "MBPP/510"]


class TestFiles:
    def test_gzipped(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.jsonl.gz"
        file.write_bytes(gzip.compress((json.dumps(HUMANEVAL) + "\n\n").encode()))
        assert [problem.id for problem in load_humaneval(file)] == ["HumanEval/0"]

    @pytest.mark.parametrize("name", ["task_id", "prompt", "entry_point", "canonical_solution", "test"])
    @pytest.mark.parametrize("value", [None, "", 3, []])
    def test_a_bad_field_of_humaneval(self, name: str, value: Any, tmp_path: Path) -> None:
        file = write(tmp_path, HUMANEVAL, {**HUMANEVAL, name: value})
        with pytest.raises(UserError, match=rf"^{file}:2: {name}: "):
            load_humaneval(file)

    @pytest.mark.parametrize("row", [SANITIZED, FULL])
    @pytest.mark.parametrize("name", ["task_id", "code", "test_list"])
    @pytest.mark.parametrize("value", [None, "", [], [1]])
    def test_a_bad_field_of_mbpp(self, row: dict[str, Any], name: str, value: Any, tmp_path: Path) -> None:
        file = write(tmp_path, row, {**row, name: value})
        with pytest.raises(UserError, match=rf"^{file}:2: {name}: "):
            load_mbpp(file)

    @pytest.mark.parametrize(
        ("load", "row", "said"),
        [
            (load_humaneval, {**HUMANEVAL, "entry_point": "other"}, "entry_point: the prompt has no function 'other'"),
            (load_humaneval, {**HUMANEVAL, "test": "assert True"}, "test: a function `check` was expected"),
            (load_mbpp, {**SANITIZED, "code": "def other(): pass"}, "code: no function that the tests"),
            (load_mbpp, {**SANITIZED, "prompt": ""}, "prompt: text was expected"),
            (load_mbpp, {**FULL, "test_setup_code": 3}, "test_setup_code: text was expected"),
            (load_mbpp, {**SANITIZED, "test_imports": "import math"}, "test_imports: a list"),
            (load_mbpp, "{", "no JSON"),
            (load_mbpp, "[]", "list, and not a JSON object"),
        ],
    )
    def test_other_bad_rows(self, load: Callable[[Path], Any], row: Any, said: str, tmp_path: Path) -> None:
        file = write(tmp_path, row)
        with pytest.raises(UserError) as caught:
            load(file)
        assert str(caught.value).startswith(f"{file}:1: {said}")

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "empty.jsonl").write_text("\n")
        (tmp_path / "broken.jsonl.gz").write_bytes(b"no gzip")
        for name in ("empty.jsonl", "broken.jsonl.gz", "missing.jsonl"):
            with pytest.raises(UserError, match=name):
                load_humaneval(tmp_path / name)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("a\n```python\nx\n```\nb\n```python\ny\n```", "x\n"),
        ("```\nx\n```", "x\n"),
        ("```Python3 title=a\nx\n```", "x\n"),
        ("```bash\npip install x\n```\n```python\ny\n```", "y\n"),
        ("  ```py\n  x\n  ```", "  x\n"),
        ("```python\nx\ny", "x\ny"),
        ("```python\r\nx\r\n```", "x\n"),
        ("x = 1", "x = 1"),
        ("call `f` or ```g``` now", "call `f` or ```g``` now"),
    ],
)
def test_first_block(answer: str, code: str) -> None:
    assert first_block(answer) == code


def test_cut_at_the_first_stop() -> None:
    assert cut("    a\n    if b\nprint(1)\ndef c", HUMANEVAL_STOP) == "    a\n    if b"
    assert cut("    a", HUMANEVAL_STOP) == "    a"


REAL = {
    "humaneval": (load_humaneval, "humaneval.jsonl"),
    "mbpp": (load_mbpp, "sanitized-mbpp.jsonl"),
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["humaneval", pytest.param("mbpp", marks=pytest.mark.slow)])
def test_every_real_solution_passes_and_nothing_does_not(name: str) -> None:
    load, file = REAL[name]
    problems = load(Path(os.environ["AYA_DATA"]) / "eval" / name / file)
    solved = run_programs([problem.program(problem.solution) for problem in problems], workers=2)
    assert {p.id: outcome for p, outcome in zip(problems, solved, strict=True) if not outcome.passed} == {}
    nothing = [p.program(f"def {p.entry_point}(*args, **kwargs):\n    return None") for p in problems]
    unsolved = run_programs(nothing, workers=2)
    assert [p.id for p, outcome in zip(problems, unsolved, strict=True) if outcome.passed] == []


@pytest.mark.real_data
def test_real_solutions_as_models_would_write_them() -> None:
    folder = Path(os.environ["AYA_DATA"]) / "eval"
    humaneval = load_humaneval(folder / "humaneval" / "humaneval.jsonl")[::5]
    bodies = [problem.solution.removeprefix(problem.prompt[len(problem.before) :]) for problem in humaneval]
    programs = [
        program
        for problem, body in zip(humaneval, bodies, strict=True)
        for program in (
            problem.completed(f"{body}\n\ndef and_on("),
            problem.answered(f"Here:\n```python\n{problem.solution}\n```\n"),
            problem.answered(f"```python\n{body}```"),
        )
    ]
    assert all(outcome.passed for outcome in run_programs(programs, workers=2))
