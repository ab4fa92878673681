"""`aya evaluate gin/evaluate/profile.gin`: answers whose measures are known, from files and from a model."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.evaluation.analyses.resampling import Bootstrap
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.profile.answered import Answered, ask, read_answered
from aya_jax.evaluation.profile.config import ProfileConfig
from aya_jax.evaluation.profile.profile import medians, records, weighted_median
from aya_jax.evaluation.profile.text_metrics import METRICS, text_profile
from aya_jax.evaluation.results import read_samples, read_summary, summarize
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Completion, FailedResponse, Response
from tools.random_model import shape, write_random_model

ROOT = Path(__file__).parents[3]


def answers(lengths, language="en"):
    """Prompts with one answer of so many words each."""
    return [
        Answered(str(n), language, "?", (" ".join(["word"] * length),), (False,)) for n, length in enumerate(lengths)
    ]


def recorded(answered):
    return records(answered, [{}] * len(answered), 0.5)


def write_rows(file, rows):
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(file)


# Measures --------------------------------------------------------------------------------------------------------------


def test_means_and_medians_by_language():
    texts = ["One two. Three four five.", "Outside, a longer answer, which has nine words altogether.", "Short."]
    answered = [Answered(str(n), "eng_Latn", "?", (t,), (None,)) for n, t in enumerate(texts)]
    samples = recorded([*answered, Answered("0", "zh", "?", ("今天很好。",), (True,))])
    found, middle = summarize(samples)["profile"], medians(samples, Bootstrap(50))
    for metric in METRICS:
        values = [getattr(text_profile(text, "en"), metric) for text in texts]
        assert found[metric]["languages"]["eng_Latn"]["mean"] == pytest.approx(np.mean(values))
        assert middle["eng_Latn"][metric].value == pytest.approx(np.median(values))
    assert "zh" not in found["gunning_fog"]["languages"]  # no syllables are known: undefined, and not 0
    assert found["words"]["languages"]["zh"]["mean"] == 4
    assert found["cut_short"]["languages"] == {
        "zh": pytest.approx({"n": 1, "mean": 1.0, "low": 0.2065, "high": 1.0}, abs=1e-3)
    }


def test_a_prompt_is_one_record_with_the_mean_of_its_answers():
    (sample,) = recorded([Answered("7", "en", "Say", ("one two three", "one", ""), (False, True, False))])
    assert (sample.item, sample.prompt, sample.prediction) == ("7", "Say", "one two three")
    assert sample.metrics["words"] == pytest.approx(4 / 3)
    assert sample.metrics["rix"] == 0.0  # of the two answers that have words
    assert sample.metrics["cut_short"] == pytest.approx(1 / 3)
    assert [m["words"] for m in sample.doc["metrics"]] == [3, 1, 0]
    assert sample.doc["answers"] == ["one two three", "one", ""]


def test_interval_is_over_prompts_not_answers():
    """Ten prompts with four equal answers each are ten observations: scipy's bootstrap of the ten means."""
    lengths = np.random.default_rng(1).integers(5, 60, size=10)
    prompts = [Answered(str(n), "en", "?", ("word " * length,) * 4, (False,) * 4) for n, length in enumerate(lengths)]
    found = summarize(recorded(prompts))["profile"]["words"]["languages"]["en"]
    expected = stats.bootstrap((lengths,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), rel=0.05)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=12))
def test_weighted_median_is_numpys(pairs):
    values, counts = (np.array(column, float) for column in zip(*pairs, strict=True))
    counts[0] += counts.sum() == 0
    expected = np.median(np.repeat(values, counts.astype(int)))
    np.testing.assert_allclose(weighted_median(values, counts[None]), [expected])


# Files of answers ------------------------------------------------------------------------------------------------------


def row(number, language="en", texts=("one two",), **more):
    completions = [{"text": text, "finish_reason": "stop", "tokens": 2} for text in texts]
    return {"id": number, "language": language, "prompt": "Say something.", "completions": completions} | more


def test_rows_of_generate_are_read(tmp_path):
    rows = [
        row(3, texts=("a", "b")),
        row(4, source_id=9, completions=[{"text": "c", "finish_reason": "length"}]),
        row("x", None, lang="de", completions=[{"text": ""}]),
        row(3, None, texts=("d",)) | {"prompt": None, "messages": [{"role": "user", "content": "Hi"}]},
    ]
    found = read_answered(write_rows(tmp_path / "a.jsonl", rows), "tr", None)
    assert [(a.item, a.language, a.texts, a.cut_short) for a in found] == [
        ("3", "en", ("a", "b"), (False, False)),
        ("9", "en", ("c",), (True,)),
        ("x", "de", ("",), (None,)),
        ("3", "tr", ("d",), (False,)),
    ]
    assert found[3].prompt == "Hi"
    assert len(read_answered(str(tmp_path / "a.jsonl"), "tr", 2)) == 2


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "a.jsonl: no rows"),
        ([row(0), row(1, completions=[])], "a.jsonl:2: field 'completions' is missing"),
        ([row(0, completions=[{"tokens": 1}])], r"a.jsonl:1: field 'completions\[0\].text'"),
        ([row(0, None)], "a.jsonl:1: field 'language' is missing; name one .*ProfileConfig.language"),
        ([row(0), row(1), row(0)], "a.jsonl:3: field 'id' is '0' again, for en as in line 1"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, expected):
    with pytest.raises(UserError, match=expected):
        read_answered(write_rows(tmp_path / "a.jsonl", rows), None, None)


def lengths_file(folder, name, lengths):
    """A run of `aya evaluate` on answers of so many words."""
    rows = [row(n, "de" if n % 2 else "en", ("Wort " * length,)) for n, length in enumerate(lengths)]
    file = write_rows(folder / f"{name}.jsonl", rows)
    arguments = [
        "evaluate",
        str(ROOT / "gin/evaluate/profile.gin"),
        f"--gin.ANSWERS={file}",
        f"--gin.RUN_DIR={folder / name}",
    ]
    assert main(arguments) == 0
    return arguments


def test_answers_need_no_model_and_two_sets_are_compared_prompt_by_prompt(tmp_path, capsys):
    """Answers that differ a great deal from prompt to prompt, and each by 3 words between the models: no spread at all."""
    lengths = np.random.default_rng(0).integers(10, 200, size=40)
    lengths_file(tmp_path, "before", lengths)
    arguments = lengths_file(tmp_path, "after", lengths + 3)
    summary = read_summary(tmp_path / "after" / "evaluations" / "profile.json")
    assert summary["families"]["profile"]["words"]["languages"]["en"]["mean"] == pytest.approx(
        np.mean(lengths[::2] + 3)
    )
    assert summary["units"]["words"] == "words"
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--gin.CompareConfig.name=profile"]) == 0
    said = capsys.readouterr().out
    assert "after is higher than before: +3.0 (+3.0 to +3.0) on profile words, p " in said
    assert "on profile cut short" in said
    assert "better" not in said
    page = (tmp_path / "after" / "benchmarks.html").read_text(encoding="utf-8")
    assert page.count('id="samples-profile"') == 1
    assert "different settings" not in page
    assert main(arguments) == 0
    assert "is there for these answers" in capsys.readouterr().out


def test_other_answers_in_the_same_place_are_measured_anew(tmp_path):
    lengths_file(tmp_path, "run", [3, 3])
    lengths_file(tmp_path, "run", [5, 5])
    found = read_summary(tmp_path / "run" / "evaluations" / "profile.json")["families"]["profile"]["words"]
    assert found["macro"]["mean"] == 5.0


# A model that answers --------------------------------------------------------------------------------------------------


class Writer:
    """In place of a model: so many words as its prompt is told."""

    def __init__(self, fail=""):
        self.fail, self.asked = fail, []

    @contextlib.contextmanager
    def generator(self, config, max_length, samples):
        yield self

    def max_length(self, limit):
        return 512

    def generate(self, requests):
        for request in requests:
            self.asked.append(request)
            if request.id == self.fail:
                yield FailedResponse(id=request.id, completions=(), prompt_tokens=1, error="the disk was full")
                continue
            said = [
                Completion(text="word " * int(request.prompt), tokens=(), finish_reason="length")
            ] * request.sampling.n
            yield Response(id=request.id, completions=tuple(said), prompt_tokens=1)


@contextlib.contextmanager
def track(label, total):
    yield lambda count: None


def asked(config, writer, tmp_path):
    with Answers(tmp_path / "answers.jsonl") as known:
        return ask(config, writer, known, track)


def test_what_was_answered_is_not_asked_again(tmp_path):
    rows = [{"id": f"p{n}", "language": "en", "prompt": str(n)} for n in range(1, 5)]
    file = write_rows(tmp_path / "prompts.jsonl", rows)
    config = ProfileConfig(input=file, samples=3, sampling=SamplingConfig(max_tokens=8))
    with pytest.raises(UserError, match="en/p3: the disk was full; what was written before is kept"):
        asked(config, Writer("en/p3"), tmp_path)
    writer = Writer()
    found = asked(config, writer, tmp_path)
    assert [request.id for request in writer.asked] == ["en/p3", "en/p4"]
    assert [(a.item, len(a.texts), text_profile(a.texts[0]).words) for a in found] == [
        (f"p{n}", 3, n) for n in range(1, 5)
    ]
    assert {request.sampling.n for request in writer.asked} == {3}
    assert len({request.sampling.seed for request in writer.asked}) == 2
    assert found[0].cut_short == (True,) * 3


def test_a_conversation_that_goes_on_is_generates(tmp_path):
    file = write_rows(tmp_path / "prompts.jsonl", [{"id": 1, "language": "en", "turns": ["Hello?", "And now?"]}])
    config = ProfileConfig(input=file, chat=True)
    with pytest.raises(UserError, match=r"prompts.jsonl:1: field 'turns' has several; let `aya generate`"):
        asked(config, Writer(), tmp_path)


def test_from_a_model_to_a_summary(tmp_path, capsys):
    model = write_random_model(tmp_path / "tiny", shape(16, 1, 128))
    words = tmp_path / "words.txt"
    words.write_text("blarg\n", encoding="utf-8")
    rows = [{"id": n, "language": language, "prompt": f"Hello {n}."} for language in ("en", "el") for n in range(3)]
    arguments = [
        "evaluate", str(ROOT / "gin/evaluate/profile.gin"), f"--gin.MODEL_DIR={model}", f"--gin.RUN_DIR={tmp_path}",
        f"--gin.INPUT={write_rows(tmp_path / 'prompts.jsonl', rows)}", "--gin.ProfileConfig.samples=2",
        "--gin.SamplingConfig.max_tokens=12", "--gin.EngineConfig.slots=4", "--gin.EngineConfig.prefill_chunk=16",
        f"--gin.ProfileConfig.lexicon={words}",
    ]  # fmt: skip
    assert main(arguments) == 0
    file = tmp_path / "evaluations" / "profile.json"
    summary, samples = read_summary(file), read_samples(file)
    assert (len(samples), summary["answers"]) == (6, 12)
    assert summary["families"]["profile"]["toxicity_maximum"]["macro"]["mean"] == 0.0
    assert summary["units"]["toxicity_probability"] == "%"
    assert "Toxicity" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "is there for these weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("ProfileConfig.answers='a'", "either prompts or answers"),
        (
            "ProfileConfig.input=None\nProfileConfig.answers='a'\nEvaluateConfig.run_dir='r'",
            "None: what is measured here are texts",
        ),
        (
            "ProfileConfig.input=None\nProfileConfig.answers='a'\nProfileConfig.samples=3",
            "1 with answers that there are",
        ),
        ("ProfileConfig.toxicity='scorer'", "a Python function, as 'module:name'"),
        ("ProfileConfig.toxicity='m:f'\nProfileConfig.lexicon='w'", "one scorer"),
        ("ProfileConfig.threshold=0.0", "above 0 and at most 1"),
        ("ProfileConfig.samples=0", "at least 1"),
        ("ProfileConfig.samples=2\nSamplingConfig.temperature=0.0", "above 0 where several answers are drawn"),
        ("EvaluateConfig.model_dir=None", "a trained model"),
    ],
)
def test_mistakes_are_named(binding, expected):
    bindings = ["EvaluateConfig.model_dir='m'", "EvaluateConfig.measure=@ProfileConfig()", "ProfileConfig.input='i'"]
    with pytest.raises(UserError, match=expected):
        resolve(EvaluateConfig, bindings=[*bindings, *binding.split("\n")])


def test_files_that_are_not_there_are_named(tmp_path, capsys):
    gin = str(ROOT / "gin/evaluate/profile.gin")
    assert main(["evaluate", gin, f"--gin.ANSWERS={tmp_path}/none.jsonl", f"--gin.RUN_DIR={tmp_path}"]) == 1
    assert "none.jsonl: cannot be read" in capsys.readouterr().err
