"""`aya generate` with a generator whose answers are known."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
from pathlib import Path

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


class Talker(Echo):
    """Says the last thing it was told in capitals, and the number of turns before it."""

    def generate(self, requests):
        for request in reversed(list(requests)):
            self.asked.append(request.prompt)
            last = request.prompt[-1].content
            if last == "poison":
                yield FailedResponse(id=request.id, completions=(), prompt_tokens=0, error="refused")
                continue
            if last == "stop":
                raise KeyboardInterrupt
            text = f"{last.upper()} {len(request.prompt)} {request.sampling.seed % 1000}"
            completions = (Completion(text=text, tokens=(), finish_reason="stop"),)
            yield Response(id=request.id, completions=completions, prompt_tokens=len(request.prompt))


@pytest.fixture
def talker(monkeypatch):
    generator = Talker()
    monkeypatch.setattr(generate, "open_model", lambda config, say: generator)
    return generator


def test_every_turn_is_answered_behind_the_answers_to_those_before(tmp_path, talker):
    write(
        tmp_path / "in.jsonl",
        {"question_id": 1, "turns": ["a", "b", "c"], "category": "x"},
        {"question_id": 2, "turns": ["d"]},
        {"messages": [{"role": "user", "content": "e"}]},
    )
    assert aya(tmp_path, "GenerateConfig.chat=True") == 0
    rows = read(tmp_path / "out.jsonl")
    said = [[completion["text"] for completion in row["completions"]] for row in rows]
    assert [[text.rsplit(" ", 1)[0] for text in texts] for texts in said] == [["A 1", "B 3", "C 5"], ["D 1"], ["E 1"]]
    assert len({text.rsplit(" ", 1)[1] for text in said[0]}) == 3  # every turn draws anew
    assert (rows[0]["turns"], rows[0]["category"], rows[0]["prompt_tokens"]) == (["a", "b", "c"], "x", 5)
    last = talker.asked[-1]
    assert [(message.role, message.content) for message in last] == [
        ("user", "a"), ("assistant", said[0][0]), ("user", "b"), ("assistant", said[0][1]), ("user", "c"),
    ]  # fmt: skip


def test_a_conversation_that_was_stopped_goes_on_at_its_turn(tmp_path, talker, capsys):
    """Of three rows one is whole, one has its first turn, and one has nothing when it stops."""
    write(tmp_path / "in.jsonl", {"turns": ["stop", "x"]}, {"turns": ["a", "b"]}, {"turns": ["c"]})
    assert aya(tmp_path, "GenerateConfig.chat=True") == 130
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes() + b'{"row": 1, "begun')  # cut off within a line
    talker.asked.clear()
    assert aya(tmp_path, "GenerateConfig.chat=True") == 130
    assert [prompt[-1].content for prompt in talker.asked] == ["b", "stop"]
    assert "1 of 3 rows were answered before" in capsys.readouterr().out
    whole, Talker.generate = Talker.generate, lambda self, requests: whole(self, map(harmless, requests))
    try:
        assert aya(tmp_path, "GenerateConfig.chat=True") == 0
    finally:
        Talker.generate = whole
    assert [len(row["completions"]) for row in read(tmp_path / "out.jsonl")] == [2, 2, 1]
    again = tmp_path / "again.jsonl"
    talker.asked.clear()
    write(tmp_path / "in.jsonl", {"turns": ["hello", "x"]}, {"turns": ["a", "b"]}, {"turns": ["c"]})
    assert aya(tmp_path, "GenerateConfig.chat=True", f"OUTPUT={again}") == 0
    assert read(again)[1:] == read(tmp_path / "out.jsonl")[1:]  # as if it had never been stopped


def harmless(request):
    """The request with "stop" said otherwise."""
    prompt = tuple(
        dataclasses.replace(message, content=message.content.replace("stop", "hello")) for message in request.prompt
    )
    return dataclasses.replace(request, prompt=prompt)


def test_a_later_turn_that_fails_is_asked_for_again(tmp_path, talker, capsys):
    write(tmp_path / "in.jsonl", {"turns": ["a", "poison"]})
    for _ in range(2):
        assert aya(tmp_path, "GenerateConfig.chat=True") == 1
        assert "row 1 has no answer: refused" in capsys.readouterr().out
    assert [prompt[-1].content for prompt in talker.asked] == ["a", "poison", "poison"]


@pytest.mark.parametrize(
    ("row", "chat", "problem"),
    [
        ({"turns": ["a", "b"]}, False, "turns: they are a conversation; add --chat"),
        ({"turns": []}, True, "expected a list of texts"),
        ({"turns": ["a", 1]}, True, "expected a list of texts"),
        ({"turns": ["a", "b"], "sampling": {"n": 2}}, True, "sampling.n = 2: one sample of a conversation of 2 turns"),
        ({"turns": ["a"], "prompt": "a"}, True, None),
    ],
)
def test_turns_that_cannot_be_answered_are_named(tmp_path, row, chat, problem):
    file = write(tmp_path / "in.jsonl", row)
    if problem is None:
        assert read_rows(file, SamplingConfig(), chat=chat)[0].later == ()  # a prompt is what is asked
        return
    with pytest.raises(UserError, match=rf"in\.jsonl:1: .*{problem}"):
        read_rows(file, SamplingConfig(), chat=chat)


@pytest.mark.real_data
def test_mt_bench_has_two_turns_each(tmp_path):
    file = Path(os.environ["AYA_DATA"]) / "eval/mt_bench/question.jsonl"
    rows = read_rows(file, SamplingConfig(), chat=True)
    assert len(rows) == 64
    assert {len(row.later) for row in rows} == {1}
