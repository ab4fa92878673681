"""`aya generate` with a generator whose answers are known."""

from __future__ import annotations

import gzip
import json

import pytest

from aya_jax.cli import main
from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.inference import generate
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.journal import Journal
from aya_jax.inference.prompts import read_rows
from aya_jax.inference.protocol import Completion, FailedResponse, Response, Token


class Echo:
    """Answers with the prompt in capitals, the last request first; a prompt of "poison" fails, "stop" ends the run."""

    name, weights_digest = "echo", "weights"

    def __init__(self):
        self.asked = []

    def generate(self, requests):
        for request in reversed(list(requests)):
            self.asked.append(request.prompt)
            if request.prompt == "stop":
                raise KeyboardInterrupt
            if request.prompt == "poison":
                yield FailedResponse(id=request.id, completions=(), prompt_tokens=0, error="refused")
                continue
            text = str(request.prompt).upper()
            tokens = (Token(id=1, text=text, log_prob=-0.5),)
            completions = (Completion(text=text, tokens=tokens, finish_reason="stop"),) * request.sampling.n
            yield Response(id=request.id, completions=completions, prompt_tokens=len(text))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.fixture
def echo(monkeypatch):
    generator = Echo()
    monkeypatch.setattr(generate, "open_model", lambda config, say: generator)
    return generator


def write(file, *rows):
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def aya(tmp_path, *bindings):
    files = [f"INPUT={tmp_path / 'in.jsonl'}", f"OUTPUT={tmp_path / 'out.jsonl'}", "MODEL_DIR=any"]
    return main(["generate", *(f"--gin.{each}" for each in (*files, *bindings))])


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_rows_are_answered_in_their_order_with_what_they_held(tmp_path, echo):
    write(
        tmp_path / "in.jsonl",
        {"prompt": "a", "topic": "é"},
        {"id": "x", "prompt": "b", "sampling": {"n": 2, "log_probs": 0}},
    )
    assert aya(tmp_path) == 0
    first, second = read(tmp_path / "out.jsonl")
    assert first == {
        "prompt": "a",
        "topic": "é",
        "id": "0",
        "completions": [{"text": "A", "finish_reason": "stop", "tokens": 1}],
        "prompt_tokens": 1,
    }
    assert second["id"] == "x"
    assert [completion["log_probs"] for completion in second["completions"]] == [
        [{"id": 1, "text": "B", "log_prob": -0.5}]
    ] * 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path, echo, capsys):
    write(tmp_path / "in.jsonl", {"prompt": "a"}, {"prompt": "stop"}, {"prompt": "b"}, {"prompt": "c"})
    assert aya(tmp_path) == 130
    assert not (tmp_path / "out.jsonl").exists()
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes() + b'{"row": 0, "rec')  # cut off within a line
    assert echo.asked == ["c", "b", "stop"]
    echo.asked.clear()
    Echo.generate, whole = (
        (lambda self, requests: whole(self, [r for r in requests if r.prompt != "stop"])),
        Echo.generate,
    )
    try:
        aya(tmp_path)
    finally:
        Echo.generate = whole
    assert echo.asked == ["a"]
    assert "2 of 4 rows were answered before" in capsys.readouterr().out


def test_an_output_or_answers_to_another_question_are_not_touched(tmp_path, echo, capsys):
    write(tmp_path / "in.jsonl", {"prompt": "a"}, {"prompt": "stop"}, {"prompt": "b"})
    aya(tmp_path)
    assert aya(tmp_path, "SamplingConfig.temperature=0.5") == 1
    assert "other prompts, another model or other settings" in capsys.readouterr().err
    (tmp_path / "out.jsonl.partial").unlink()
    write(tmp_path / "in.jsonl", {"prompt": "a"})
    assert aya(tmp_path) == 0
    assert aya(tmp_path) == 1
    assert "is there already" in capsys.readouterr().err


def test_rows_that_fail_are_named_and_asked_again(tmp_path, echo, capsys):
    write(tmp_path / "in.jsonl", {"prompt": "a"}, {"prompt": "poison"})
    for _ in range(2):
        assert aya(tmp_path) == 1
        out, err = capsys.readouterr()
        assert "row 2 has no answer: refused" in out
        assert "1 rows have no answer" in err
    assert echo.asked == ["poison", "a", "poison"]


def test_one_prompt_is_answered_on_the_terminal(echo, capsys):
    assert main(["generate", "--gin.MODEL_DIR=any", "--gin.PROMPT=good [bold]day[/bold]"]) == 0
    assert capsys.readouterr().out.strip() == "GOOD [BOLD]DAY[/BOLD]"


def test_every_wrong_row_is_named_before_anything_is_asked(tmp_path, echo, capsys):
    rows = [
        {"prompt": ""},
        {"prompt": "a", "messages": []},
        {"prompt": "a", "sampling": {"temprature": 1}},
        {"prompt": "a", "sampling": {"top_p": 2}},
        {"prompt": "a", "sampling": {"n": "2"}},
        {"messages": [{"role": "judge", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"prompt": "good"},
    ]
    write(tmp_path / "in.jsonl", *rows)
    with open(tmp_path / "in.jsonl", "a") as file:
        file.write("[1]\n{\n")
    assert aya(tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    found = [line.partition("in.jsonl:")[2] for line in lines[:-1]]
    assert [line.partition(": ")[0] for line in found] == ["1", "2", "3", "4", "5", "6", "7", "9", "10"]
    for line, part in zip(
        found,
        ["a text", "either", "temperature?", "at most 1", "int", "judge", "content", "object", "JSON"],
        strict=True,
    ):
        assert part in line
    assert echo.asked == []


def test_prompts_may_be_compressed_conversations_and_what_a_user_says(tmp_path):
    with gzip.open(tmp_path / "in.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(
            '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "ü"}]}\n\n{"prompt": "p"}\n'
        )
    rows = read_rows(tmp_path / "in.jsonl.gz", SamplingConfig(), chat=True)
    assert [row.request.prompt for row in rows] == [
        (Message("system", "s"), Message("user", "ü")),
        (Message("user", "p"),),
    ]


def test_rows_have_seeds_of_their_own_that_one_seed_decides(tmp_path):
    file = write(tmp_path / "in.jsonl", {"prompt": "a"}, {"prompt": "a"}, {"prompt": "a", "sampling": {"seed": 7}})
    seeds = [
        [row.request.sampling.seed for row in read_rows(file, SamplingConfig(seed=s), chat=False)] for s in (0, 0, 1)
    ]
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == 5
    assert seeds[0][2] == seeds[2][2] == 7


def test_a_journal_that_is_no_such_file_is_not_lost(tmp_path):
    (tmp_path / "out.jsonl.partial").write_text('{"question": "another"}\n{"row": 0, "record": {}}\n')
    with pytest.raises(UserError, match="remove it to start over"):
        Journal(tmp_path / "out.jsonl", "mine")
    assert (tmp_path / "out.jsonl.partial").read_text().count("\n") == 2
