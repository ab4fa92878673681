"""`aya judge`: from answer files to tables, with judges whose verdicts are planted."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.evaluation.judging import run as verb
from aya_jax.evaluation.judging.config import JudgeConfig, PairwiseConfig
from aya_jax.evaluation.judging.pairwise import load_battles
from aya_jax.evaluation.judging.sitting import answers_of
from aya_jax.evaluation.results import read_samples, read_summary
from aya_jax.inference.protocol import Completion, FailedResponse, Response
from tools.random_model import shape, write_random_model

ROOT = Path(__file__).parents[3]
LANGUAGES = ("de", "he")


def answers(file, texts, **more):
    """As `aya generate` writes them: a row of each language for each text."""
    rows = [
        {"id": f"p{n}", "language": language, "prompt": f"Frage {n}?", "completions": [{"text": text}], **more}
        for language in LANGUAGES
        for n, text in enumerate(texts)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


class Judge:
    """Says what it is told to, of the judge's whole prompt."""

    name, weights_digest = "stub", "d1"

    def __init__(self, say):
        self.say, self.asked = say, 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def generate(self, requests):
        for request in requests:
            self.asked += 1
            said = self.say(" ".join(message.content for message in request.prompt), self.asked)
            if said is None:
                yield FailedResponse(id=request.id, completions=(), prompt_tokens=0, error="the line went dead")
            else:
                completion = Completion(text=said, tokens=(), finish_reason="stop")
                yield Response(id=request.id, completions=(completion,), prompt_tokens=0)


def better(prompt, asked):
    """Prefers the answer that has more exclamation marks, strongly; the answers stand one after the other."""
    first, second = prompt.find("good!"), prompt.find("bad")
    return "My own answer. [[A>>B]]" if first < second else "My own answer. [[B>>A]]"


def judge(monkeypatch, tmp_path, say, what, *more, name="judged"):
    stub = Judge(say)
    monkeypatch.setattr(verb, "open_model", lambda config, tell: contextlib.nullcontext(stub))
    monkeypatch.setattr(verb, "identity", lambda config: stub.weights_digest)
    arguments = [
        "judge", str(ROOT / "gin/judge" / what), f"--gin.RUN_DIR={tmp_path}", "--gin.JUDGE_DIR=judge",
        f"--gin.JudgeConfig.name={name}", *(f"--gin.{binding}" for binding in more),
    ]  # fmt: skip
    assert main(arguments) == 0
    file = tmp_path / "evaluations" / f"{name}.json"
    return stub, read_summary(file), read_samples(file)


@pytest.fixture
def files(tmp_path):
    good, bad = (answers(tmp_path / f"{name}.jsonl", [text] * 12) for name, text in (("a", "good!"), ("b", "bad")))
    return f"ANSWERS={good}", f"BASELINE={bad}"


def test_a_judge_that_sees_it_gives_all_and_the_other_way_round_nothing(monkeypatch, tmp_path, files, capsys):
    stub, summary, samples = judge(monkeypatch, tmp_path, better, "arena_hard.gin", *files)
    assert stub.asked == 2 * 24
    assert summary["scores"]["macro"]["value"] == 100
    assert {sample.metrics["win_rate"] for sample in samples} == {1.0}
    assert summary["families"]["arena_hard"]["win_rate"]["languages"]["he"]["n"] == 12
    assert "48 calls with" in capsys.readouterr().out
    turned = (files[1].replace("BASELINE", "ANSWERS"), files[0].replace("ANSWERS", "BASELINE"))
    _, other, _ = judge(monkeypatch, tmp_path, better, "arena_hard.gin", *turned, name="turned")
    assert other["scores"]["macro"]["value"] == 0


def test_a_judge_that_always_says_a_gives_half(monkeypatch, tmp_path, files):
    _, summary, samples = judge(monkeypatch, tmp_path, lambda *_: "[[A>B]]", "arena_hard.gin", *files)
    assert summary["scores"]["macro"]["value"] == 50
    assert (summary["audit"]["all"]["position_gap"], summary["audit"]["all"]["flip_rate"]) == (100, 100)
    assert {sample.metrics["win_rate"] for sample in samples} == {0.5}


def test_nonsense_is_counted_and_is_no_score(monkeypatch, tmp_path, files, capsys):
    _, summary, samples = judge(monkeypatch, tmp_path, lambda *_: "I cannot say.", "win_tie_loss.gin", *files)
    assert summary["scores"]["macro"]["win_rate"]["value"] is None
    assert summary["audit"]["all"]["unparsed"] == 48
    assert not any(sample.metrics for sample in samples)
    assert "no verdict: p0 (de), order 1: the reply holds no verdict" in capsys.readouterr().out


def test_replies_are_not_asked_for_again_and_failed_ones_are(monkeypatch, tmp_path, files):
    dead = lambda prompt, asked: None if asked % 4 == 0 else better(prompt, asked)  # noqa: E731
    stub, summary, _ = judge(monkeypatch, tmp_path, dead, "arena_hard.gin", *files)
    assert (stub.asked, summary["audit"]["all"]["unparsed"]) == (48, 12)
    (tmp_path / "evaluations" / "judged.json").unlink()  # as if it had been killed before its end
    stub, summary, _ = judge(monkeypatch, tmp_path, better, "arena_hard.gin", *files)
    assert (stub.asked, summary["audit"]["all"]["unparsed"]) == (12, 0)
    stub, _, _ = judge(monkeypatch, tmp_path, better, "arena_hard.gin", *files)
    assert stub.asked == 0


def test_its_cost_is_said_and_nothing_asked(tmp_path, files, capsys):
    arguments = [f"--gin.{binding}" for binding in (*files, "JudgeConfig.dry_run=True", "JudgeConfig.max_tokens=100")]
    file = str(ROOT / "gin/judge/arena_hard.gin")
    assert main(["judge", file, f"--gin.RUN_DIR={tmp_path}", "--gin.JUDGE_DIR=none", *arguments]) == 0
    assert "48 calls" in capsys.readouterr().out
    assert not (tmp_path / "evaluations").exists()


def test_agreement_with_people(monkeypatch, tmp_path, capsys):
    file = tmp_path / "natural.jsonl"
    rows = [{"input": "Say it.", "output_1": "good!", "output_2": "bad", "label": 1 + (n % 4 == 0)} for n in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = lambda prompt, _: "[[A]]" if prompt.find("good!") < prompt.find("bad") else "[[B]]"  # noqa: E731
    _, summary, _ = judge(monkeypatch, tmp_path, first, "agreement.gin", f"PAIRS=('{file}',)")
    assert summary["agreement"]["all"]["accuracy"]["value"] == 75
    assert summary["agreement"]["natural"]["judgements"] == 40
    assert "Agreement with people" in capsys.readouterr().out


def test_several_labels_of_a_pair_are_raters(monkeypatch, tmp_path, capsys):
    file = tmp_path / "people.jsonl"
    rows = [
        {"input": "?", "output_1": "good!", "output_2": "bad", "labels": [1, 1, 1 + (n % 5 == 0)], "language": language}
        for language in LANGUAGES
        for n in range(10)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = lambda prompt, _: "[[A]]" if prompt.find("good!") < prompt.find("bad") else "[[B]]"  # noqa: E731
    _, summary, _ = judge(monkeypatch, tmp_path, first, "agreement.gin", f"PAIRS=('{file}',)")
    assert summary["agreement"]["all"]["accuracy"]["value"] == 100
    assert list(summary["raters"]) == ["all", "language de", "language he"]
    assert summary["raters"]["all"]["most_labels"] == 3
    # Of 60 labels 4 say "2"; each is on a pair with two that say "1": D_o = 8 / 60, D_e = 2 * 4 * 56 / (60 * 59).
    assert summary["raters"]["all"]["people"]["value"] == pytest.approx(1 - (8 / 60) / (448 / 3540))
    assert "Krippendorff's alpha" in capsys.readouterr().out


def test_reward_bench_says_what_is_missing(monkeypatch, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    rows = [
        {
            "id": n,
            "language": "deu_Latn",
            "prompt": "?",
            "chosen": "good!",
            "rejected": "bad",
            "subset": "xstest-should-refuse",
        }
        for n in range(8)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = lambda prompt, _: "[[A]]" if prompt.find("good!") < prompt.find("bad") else "[[B]]"  # noqa: E731
    _, summary, samples = judge(monkeypatch, tmp_path, first, "reward_bench.gin", f"PAIRS=('{file}',)")
    found = summary["scores"]["languages"]["deu_Latn"]
    assert found["subsets"]["xstest-should-refuse"]["accuracy"]["value"] == 100
    assert found["score"] is None
    assert "alpacaeval-easy" in found["missing"]
    assert len(samples) == 8
    assert "alpacaeval-easy" in capsys.readouterr().out


def test_harm_by_part_relative_to_another_model(monkeypatch, tmp_path):
    facts = {"harm_category": "['invented']", "global_or_local": "global"}
    mine = answers(tmp_path / "mine.jsonl", ["calm"] * 9 + ["rude"], **facts)
    theirs = answers(tmp_path / "theirs.jsonl", ["calm"] * 5 + ["rude"] * 5, **facts)
    harmless = answers(tmp_path / "harmless.jsonl", ["calm"] * 8 + ["no way"] * 2, **facts)

    def say(prompt, _):
        if "REFUS" in prompt.upper().rsplit("[[", 1)[0] and "no way" in prompt:
            return "[[REFUSED]]"
        return "[[UNSAFE]]" if "rude" in prompt else "[[SAFE]]" if "[[SAFE]]" in prompt else "[[ANSWERED]]"

    binding = (f"ANSWERS={mine}", f"BASELINE={theirs}", f"HARMLESS={harmless}")
    _, summary, _ = judge(monkeypatch, tmp_path, say, "harm.gin", *binding)
    assert summary["harm"]["overall"]["rate"]["value"] == pytest.approx(10)
    assert summary["harm"]["languages"]["he"]["rate"]["value"] == pytest.approx(10)
    assert summary["relative_change"]["all"]["change"]["value"] == pytest.approx(-80)
    assert summary["over_refusal"]["overall"]["judged"] == 20


def test_a_model_of_ours_on_the_bench(tmp_path):
    files = [f"{name.upper()}={answers(tmp_path / f'{name}.jsonl', [name])}" for name in ("answers", "baseline")]
    model = write_random_model(tmp_path / "tiny", shape(32, 2, 2048))
    arguments = [
        f"--gin.{b}" for b in (*files, f"RUN_DIR={tmp_path}", f"JUDGE_DIR={model}", "JudgeConfig.max_tokens=4")
    ]
    assert main(["judge", str(ROOT / "gin/judge/arena_hard.gin"), *arguments]) == 0
    summary = read_summary(tmp_path / "evaluations" / "judged.json")
    assert summary["audit"]["all"]["games"] == 4


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("PairwiseConfig.strong_weight=0", "at least 1"),
        ("JudgeConfig.max_tokens=0", "at least 1"),
        ("JudgeConfig.run_dir=''", "a directory for the results"),
    ],
)
def test_mistakes_are_named(binding, expected):
    bindings = [
        "JudgeConfig.judge=@LocalModelConfig()", "LocalModelConfig.model_dir='m'", "JudgeConfig.run_dir='r'",
        "JudgeConfig.what=@PairwiseConfig()", "PairwiseConfig.answers='a'", "PairwiseConfig.baseline='b'", binding,
    ]  # fmt: skip
    with pytest.raises(UserError, match=expected):
        resolve(JudgeConfig, bindings=bindings)


def test_answers_that_are_missing_are_named(tmp_path, files):
    short = answers(tmp_path / "short.jsonl", ["bad"] * 11)
    config = PairwiseConfig(answers=files[0].partition("=")[2], baseline=str(short))
    with pytest.raises(UserError, match="baseline has no answer to 2 of 24 prompts, the first 'p11'"):
        load_battles(config)
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"id": "p0", "language": "de", "prompt": "?"}\n')
    with pytest.raises(UserError, match=r"bare\.jsonl.*1.*completions"):
        answers_of(str(bare), None)


@pytest.mark.parametrize(("what", "bindings"), [("arena_hard.gin", 2), ("harm.gin", 1), ("mt_bench.gin", 1)])
def test_which_reply_came_first_changes_nothing(monkeypatch, tmp_path, what, bindings):
    """One judge answers forwards, the other backwards."""
    facts = {"global_or_local": "global"}
    files = [answers(tmp_path / f"{name}.jsonl", [f"good! {n}" for n in range(6)], **facts) for name in ("a", "b")]
    named = [f"{macro}={file}" for macro, file in zip(("ANSWERS", "BASELINE"), files, strict=True)][:bindings]
    say = lambda prompt, _: "[[8]] [[SAFE]] [[A>B]]" if "good! 3" in prompt else "what?"  # noqa: E731
    found = [judge(monkeypatch, tmp_path / "forwards", say, what, *named)[1:]]
    monkeypatch.setattr(Judge, "generate", _backwards(Judge.generate))
    found.append(judge(monkeypatch, tmp_path / "backwards", say, what, *named)[1:])
    assert found[0] == found[1]


def _backwards(generate):
    return lambda self, requests: reversed(list(generate(self, requests)))
