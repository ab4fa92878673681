"""What survives a kill, and what does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.answers import Answers, question


def test_answers_are_there_again(tmp_path):
    with Answers(tmp_path / "a" / "model.jsonl") as answers:
        answers.put({"q": [-1.5, True], "r": "שלום\n"})
    with Answers(tmp_path / "a" / "model.jsonl") as answers:
        assert (answers.get("q"), answers.get("r"), answers.get("s"), len(answers)) == ([-1.5, True], "שלום\n", None, 2)


def test_what_was_put_survives_a_kill(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from aya_jax.evaluation.answers import Answers\n"
        "answers = Answers(Path(sys.argv[1]))\n"
        "answers.put({'q': 1, 'r': 2})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "model.jsonl"], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    with Answers(tmp_path / "model.jsonl") as answers:
        assert (answers.get("q"), answers.get("r")) == (1, 2)


def test_two_runs_at_once_write_a_file_each_and_the_next_reads_both(tmp_path):
    file = tmp_path / "model.jsonl"
    with Answers(file) as first, Answers(file) as second:
        first.put({"q": 1})
        second.put({"r": 2})
        with Answers(file) as third:
            assert (third.get("q"), third.get("r")) == (1, 2)
            third.put({"s": 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model-1.jsonl", "model-2.jsonl", "model.jsonl"]
    with Answers(file) as fourth:
        assert [fourth.get(name) for name in "qrs"] == [1, 2, 3]
        assert fourth.file == file


@pytest.mark.parametrize("torn", [b'["s", "half an ans', b'["s", 3]', b"\xff\xfe\n", b"[1]\n"])
def test_a_line_that_was_cut_short_is_written_over(tmp_path, torn):
    file = tmp_path / "model.jsonl"
    with Answers(file) as answers:
        answers.put({"q": 1})
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    with Answers(file) as answers:
        assert len(answers) == 1
        answers.put({"t": 4})
    assert file.read_bytes() == whole + b'["t", 4]\n'


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is in the way"):
        Answers(tmp_path / "file" / "model.jsonl")


def test_a_full_disk_is_named():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    answers = Answers.__new__(Answers)
    from pathlib import Path

    answers.file, answers._known = Path("/dev/full"), {}
    answers._handle = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(UserError, match="No space left on device; what was answered before is kept"):
        answers.put({"q": "a" * 100_000})
    assert len(answers) == 0


def test_questions_differ_by_all_that_decides_them():
    keys = {question("a", (1, 2), 3), question("a", (1, 2), 4), question("a", (12,), 3), question("b", (1, 2), 3)}
    assert len(keys) == 4
    assert question("a", (1, 2), 3) == question("a", [1, 2], 3)
