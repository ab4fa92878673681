"""HumanEval and MBPP: problems, the prompts that put them, and the programs that check an answer.

HumanEval (Chen et al. 2021) gives a signature with a docstring, to be continued. MBPP (Austin et al. 2021, "Program
Synthesis with Large Language Models") gives a sentence and the tests themselves, after three solved examples. Both also
have a form for chat models, which is this project's own. An answer becomes a program: the answer, then the tests;
`sandbox.run_program` says whether it ran to its last line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.code.answers import cut, first_block
from aya_jax.evaluation.rows import read_rows

HUMANEVAL_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # Chen et al. 2021, section 2.1
MBPP_STOP = ("[DONE]",)  # Austin et al. 2021, section 3
_MBPP_EXAMPLES = ("MBPP/2", "MBPP/3", "MBPP/4")
_MBPP_TEST_IDS = range(11, 511)  # section 2.1: 1-10 for prompts, 511-600 for validation, 601-974 for tuning


@dataclass(frozen=True, kw_only=True)
class CodeProblem:
    """One problem.

    Attributes:
      id: "HumanEval/0", "MBPP/11".
      prompt: what a base model continues.
      question: what a chat model is asked.
      entry_point: the function that the tests call.
      before: code that an answer may lean on without repeating it: imports and helpers.
      continued: whether a completion goes on in the middle of the prompt's own code.
      tests: code that raises where the answer is wrong.
      solution: a whole answer that is right.
      stop: where a completion ends.
    """

    id: str
    prompt: str
    question: str
    entry_point: str
    before: str
    continued: bool
    tests: str
    solution: str
    stop: tuple[str, ...]

    def program(self, code: str) -> str:
        """The program that passes if this code, the whole function, is right."""
        return f"{self.before}{code}\n\n{self.tests}\n"

    def completed(self, completion: str) -> str:
        """The program that judges how a base model continued the prompt."""
        code = cut(completion, self.stop)
        return f"{self.prompt}{code}\n\n{self.tests}\n" if self.continued else self.program(code)

    def answered(self, answer: str) -> str:
        """The program that judges a chat model's answer: its first block, or all of it.

        A block without the function is taken as the body that continues the prompt's code.
        """
        code = first_block(answer)
        defines = re.search(rf"^(?:def|class)\s+{self.entry_point}\b|^{self.entry_point}\s*=", code, re.MULTILINE)
        return self.completed(code) if self.continued and not defines else self.program(code)


def load_humaneval(path: str | Path) -> tuple[CodeProblem, ...]:
    """Reads HumanEval's JSON lines (`task_id`, `prompt`, `entry_point`, `canonical_solution`, `test`), gzipped or not.

    Raises:
      UserError: there is no such file, or a row lacks what it needs; with file, line and field.
    """
    return _load(Path(path), _humaneval)


def load_mbpp(path: str | Path) -> tuple[CodeProblem, ...]:
    """Reads MBPP's JSON lines, sanitised (`prompt`, `test_imports`) or in full (`text`, `test_setup_code`), gzipped or not.

    `task_id`, `code` and `test_list` are in both. The full layout's `challenge_test_list` is not used, as in the paper.

    Raises:
      UserError: there is no such file, or a row lacks what it needs; with file, line and field.
    """
    return _load(Path(path), _mbpp)


def mbpp_test_split(problems: Iterable[CodeProblem]) -> tuple[CodeProblem, ...]:
    """Those of MBPP that are for testing, tasks 11 to 510, so that no example of the prompt is among them."""
    return tuple(problem for problem in problems if int(problem.id.rpartition("/")[2]) in _MBPP_TEST_IDS)


def mbpp_few_shot(problem: CodeProblem, problems: Iterable[CodeProblem]) -> str:
    """The prompt of Austin et al. (2021), figure 1: three solved problems (tasks 2, 3 and 4), then this one.

    Args:
      problem: to be solved.
      problems: MBPP, with those three.

    Raises:
      UserError: one of the three is not there, or is the problem itself.
    """
    known = {each.id: each for each in problems if each.id in _MBPP_EXAMPLES}
    missing = [name for name in _MBPP_EXAMPLES if name not in known]
    if missing:
        raise UserError(f"the three examples before each problem are {', '.join(_MBPP_EXAMPLES)}; not there: {missing}")
    if problem.id in known:
        raise UserError(f"{problem.id} is one of the three examples; take the problems of mbpp_test_split")
    solved = [f"{known[name].prompt}{known[name].solution}\n[DONE]\n\n" for name in _MBPP_EXAMPLES]
    return "".join(solved) + problem.prompt


class _Row:
    """One line of a file, asked for its fields."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        self._fields, self._where = fields, where

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def fault(self, name: str, what: str) -> UserError:
        return UserError(f"{self._where}: {name}: {what}")

    def text(self, name: str, *, empty: bool = False) -> str:
        value = self._fields.get(name, "" if empty else None)
        if not isinstance(value, str) or not (value.strip() or empty):
            raise self.fault(name, f"text was expected, and this is {'missing' if value is None else repr(value)}")
        return value.replace("\r\n", "\n")

    def lines(self, name: str) -> list[str]:
        value = self._fields.get(name)
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            found = "missing" if value is None else repr(value)
            raise self.fault(name, f"a list of lines of code was expected, and this is {found}")
        return [line.replace("\r\n", "\n") for line in value]

    def number(self, name: str) -> int:
        value = self._fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fault(name, f"a number was expected, and this is {'missing' if value is None else repr(value)}")
        return value


def _load(path: Path, parse: Callable[[_Row], CodeProblem]) -> tuple[CodeProblem, ...]:
    problems = [parse(_Row(row.fields, f"{row.path}:{row.line}")) for row in read_rows(path)]
    if not problems:
        raise UserError(f"{path}: no rows")
    return tuple(problems)


def _humaneval(row: _Row) -> CodeProblem:
    prompt, entry_point, test = row.text("prompt"), row.text("entry_point"), row.text("test")
    start = re.search(rf"^def {re.escape(entry_point)}\b", prompt, re.MULTILINE)
    if not start:
        raise row.fault("entry_point", f"the prompt has no function {entry_point!r}")
    if "def check(" not in test:
        raise row.fault("test", "a function `check` was expected")
    before = prompt[: start.start()]
    return CodeProblem(
        id=row.text("task_id"),
        prompt=prompt,
        question="Complete this Python function. Answer with the whole function in one Python code block.\n\n"
        f"```python\n{prompt.strip()}\n```",
        entry_point=entry_point,
        before=before,
        continued=True,
        tests=f"{test}\ncheck({entry_point})",
        solution=prompt[start.start() :] + row.text("canonical_solution"),
        stop=HUMANEVAL_STOP,
    )


def _mbpp(row: _Row) -> CodeProblem:
    number, code, tests = row.number("task_id"), row.text("code"), row.lines("test_list")
    if not any(test.strip() for test in tests):
        raise row.fault("test_list", "there is no test")
    text = row.text("prompt" if "prompt" in row else "text").strip()
    setup = row.lines("test_imports") if "test_imports" in row else [row.text("test_setup_code", empty=True)]
    shown = "\n".join(tests)
    return CodeProblem(
        id=f"MBPP/{number}",
        prompt=f"You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n"
        f"{shown}\n[BEGIN]\n",
        question=f"{text}\n\nYour code should pass these tests:\n\n```python\n{shown}\n```\n\n"
        "Answer with one Python code block.",
        entry_point=_called(row, code, tests),
        before="",
        continued=False,
        tests="\n".join([*setup, *tests]).strip(),
        solution=code.rstrip(),
        stop=MBPP_STOP,
    )


def _called(row: _Row, code: str, tests: Sequence[str]) -> str:
    """The function that the tests call: of those that the solution defines, the first that stands in them."""
    defined = re.findall(r"^(?:def|class)\s+(\w+)", code, re.MULTILINE)
    used = re.findall(r"\b(\w+)\s*\(", "\n".join(tests))
    called = next((name for name in used if name in defined), None)
    if called is None:
        raise row.fault("code", "no function that the tests in test_list call is defined here")
    return called
