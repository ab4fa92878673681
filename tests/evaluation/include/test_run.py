"""`aya evaluate gin/evaluate/include.gin`: rows of both schemas, answers that were planted, and a model of its own."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.include import run
from aya_jax.evaluation.include.asking import Form, Prompts, written
from aya_jax.evaluation.include.config import IncludeConfig
from aya_jax.evaluation.include.prompts import STYLES, WORDINGS, prompt
from aya_jax.evaluation.include.rows import load
from aya_jax.evaluation.results import read_samples, read_summary
from aya_jax.inference.protocol import Completion, FailedResponse, Response
from tools.random_model import shape, write_random_model

ROOT = Path(__file__).parents[3]


def row(language, number, **more):
    return {
        "language": language,
        "country": "Turkey" if language == "Turkish" else "Armenia",
        "domain": "STEM" if number % 2 else "Humanities",
        "subject": "Maths",
        "regional_feature": "agnostic" if number % 2 else "culture",
        "level": "Academic",
        "question": f"How many is {number} in {language}?",
        "answer": number % 4,
        **more,
    }


def as_list(language, number):
    return row(language, number, choices=[f"{number}{letter}" for letter in "pqrs"])


def flat(language, number):
    letters = zip("abcd", "pqrs", strict=True)
    return row(language, number, **{f"option_{option}": f"{number}{letter}" for option, letter in letters})


def write_rows(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")


@pytest.fixture
def data(tmp_path):
    """Two languages of 4 questions and 2 examples each: Turkish, of which there is an instruction, and Armenian."""
    home = tmp_path / "data" / "CohereLabs" / "include-base-44"
    for language, make in (("Turkish", as_list), ("Armenian", flat)):
        write_rows(home / language / "test.jsonl", [make(language, number) for number in range(4)])
        write_rows(home / language / "validation.jsonl", [make(language, number) for number in (10, 11)])
    return tmp_path / "data"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_random_model(folder, shape(16, 1))
    return ChatTokenizer.open(str(folder))


class Writer:
    """In place of a model: for each question, by the beginning of its form, the text that was planted."""

    def __init__(self, tokenizer, answer, room=8192):
        self.tokenizer, self.answer, self.room, self.asked = tokenizer, answer, room, []

    @contextlib.contextmanager
    def generator(self, config, max_length, samples):
        yield self

    def max_length(self, limit):
        return min(limit or self.room, self.room)

    def generate(self, requests):
        for request in requests:
            self.asked.append(request)
            text = self.answer(request)
            if text is None:
                yield FailedResponse(id=request.id, completions=(), prompt_tokens=1, error="the disk was full")
            else:
                done = Completion(text=text, tokens=(), finish_reason="stop")
                yield Response(id=request.id, completions=(done,), prompt_tokens=1)


@contextlib.contextmanager
def track(label, total):
    yield lambda count: None


def answered(config, writer, tmp_path):
    with Answers(tmp_path / "answers.jsonl") as answers:
        return list(written(config, load(config), writer, Prompts(config, writer), answers, track))


def test_the_three_numbers_and_their_splits(data, tmp_path, tokenizer):
    """Of 8 answers 4 are right, 2 wrong and 2 unread: 4/8, 4/6 and 2/8. In Turkish 3 of 4 are right."""
    said = {
        "Turkish/1": " A", "Turkish/2": "B", "Turkish/3": "Yanıt: C", "Turkish/4": "?",
        "Armenian/1": "D", "Armenian/2": "(B)", "Armenian/3": "no idea", "Armenian/4": "A",
    }  # fmt: skip
    config = IncludeConfig(data_dir=str(data), few_shot=2, styles=("Eng",), trained_languages=("tr",))
    writer = Writer(tokenizer, lambda request: said[request.id.removeprefix("eng/")])
    found = answered(config, writer, tmp_path)
    of_form = run.scores(config, found)["eng"]
    numbers = {name: of_form["all"][name]["value"] for name in ("total_accuracy", "answer_accuracy", "format_error")}
    assert numbers == {"total_accuracy": 4 / 8, "answer_accuracy": 4 / 6, "format_error": 2 / 8}
    right = {
        split: {name: group["right"] for name, group in of_form["splits"][split].items()} for split in of_form["splits"]
    }
    assert right["language"] == {"Armenian": 1, "Turkish": 3}
    assert right["training"] == {"neither": 1, "trained": 3}
    assert right["country"] == {"Armenia": 1, "Turkey": 3}
    assert right["domain"] == {"Humanities": 2, "STEM": 2} == {"Humanities": right["regional"]["regional"], "STEM": 2}
    samples = run.records(config, found)
    assert [sample.metrics for sample in samples if sample.language == "hy"] == [
        {"acc": 0.0, "format_error": 0.0, "answer_acc": 0.0},
        {"acc": 1.0, "format_error": 0.0, "answer_acc": 1.0},
        {"acc": 0.0, "format_error": 1.0},
        {"acc": 0.0, "format_error": 0.0, "answer_acc": 0.0},
    ]
    assert (samples[0].family, samples[0].task) == ("include_base_44_eng", "include_base_44_eng_hy")
    assert {sample.item.partition("/")[0] for sample in samples} == {"include_base_44_eng"}


def test_examples_come_first_and_reasoning_has_none(data, tmp_path, tokenizer):
    config = IncludeConfig(
        data_dir=str(data), few_shot=2, protocols=("few_shot", "reasoning"), styles=("IL", "Reg+Eng")
    )
    writer = Writer(tokenizer, lambda request: "A")
    answered(config, writer, tmp_path)
    by_form = {}
    for request in writer.asked:
        by_form.setdefault(request.id.partition("/")[0], []).append(request)
    assert {form: len(requests) for form, requests in by_form.items()} == {
        "il": 4, "reg_eng": 8, "il_reasoning": 4, "reg_eng_reasoning": 8,
    }  # fmt: skip
    turkish = by_form["il"][0]
    assert turkish.prompt.count("Yanıt:") == 3
    assert "How many is 10 in" in turkish.prompt
    assert turkish.prompt.endswith("D. 0s\nYanıt:")
    assert (turkish.sampling.max_tokens, turkish.sampling.temperature, turkish.sampling.stop) == (32, 0.0, ("\n\n",))
    thinking = by_form["reg_eng_reasoning"][0]
    assert "exam in this country: Armenia" in thinking.prompt
    assert "How many is 10 in" not in thinking.prompt
    assert (thinking.sampling.max_tokens, thinking.sampling.stop) == (1024, ())


def test_a_chat_model_is_asked_in_a_turn(data, tmp_path, tokenizer):
    config = IncludeConfig(data_dir=str(data), few_shot=0, styles=("Eng",), chat=True, limit=1)
    writer = Writer(tokenizer, lambda request: "A")
    answered(config, writer, tmp_path)
    assert {type(request.prompt[0]) for request in writer.asked} == {Message}
    assert {request.sampling.stop for request in writer.asked} == {()}


def test_what_was_answered_is_not_asked_again(data, tmp_path, tokenizer):
    config = IncludeConfig(data_dir=str(data), few_shot=0, styles=("Eng",))
    failing = Writer(tokenizer, lambda request: None if request.id == "eng/Turkish/2" else "A")
    with pytest.raises(UserError, match="eng/Turkish/2: the disk was full; what was written before is kept"):
        answered(config, failing, tmp_path)
    writer = Writer(tokenizer, lambda request: "A")
    assert len(answered(config, writer, tmp_path)) == 8
    assert [request.id for request in writer.asked] == ["eng/Turkish/2", "eng/Turkish/3", "eng/Turkish/4"]


def test_what_is_too_long_has_fewer_examples_then_loses_its_beginning(data, tokenizer):
    config = IncludeConfig(data_dir=str(data), few_shot=2)
    [exam] = [exam for exam in load(config) if exam.language == "Turkish"]
    asked, form = exam.questions[0], Form("Eng", "few_shot")
    sizes = [len(tokenizer.encode_text(prompt(asked, "Eng", exam.shots[first:]))) for first in range(3)]
    for room, examples, questions in ((sizes[0], 0, 0), (sizes[0] - 1, 1, 0), (sizes[2], 2, 0), (sizes[2] - 1, 2, 1)):
        prompts = Prompts(config, Writer(tokenizer, None, room=room + 5))
        fitted = prompts.fit(form, asked, exam.shots, 5)
        assert len(prompts.ids(fitted)) <= room
        kept = fitted.count("How many is 1") if isinstance(fitted, str) else 0
        if examples == 1:  # the first goes first
            assert "How many is 11 in" in fitted
            assert "How many is 10 in" not in fitted
        assert (kept, prompts.shortened.questions) == (0 if questions else 2 - examples, questions)
    assert list(fitted) == tokenizer.encode_text(prompt(asked, "Eng"))[-room:]


@pytest.mark.parametrize("style", STYLES)
def test_letters_are_those_of_the_harness(data, tokenizer, style):
    """Context and continuation as lm-evaluation-harness tells them apart."""
    language_model = pytest.importorskip("aya_jax.evaluation.harness.language_model")
    harness = language_model.HarnessModel(
        None, None, tokenizer, None, track, max_length=512, max_tokens=8, seed=0, chat=False
    )
    config = IncludeConfig(data_dir=str(data), few_shot=2)
    prompts = Prompts(config, Writer(tokenizer, None))
    [exam] = [exam for exam in load(config) if exam.language == "Turkish"]
    for letter in "ABCD":
        fitted = prompts.fit(Form(style, "likelihood"), exam.questions[1], exam.shots, 4)
        found = prompts.letter(fitted, letter)
        assert (list(found.context), list(found.tokens)) == harness._encode_pair(fitted, f" {letter}")


def test_from_models_to_a_comparison(data, tmp_path, capsys):
    def arguments(name, seed, *protocols):
        model = write_random_model(tmp_path / f"tiny-{seed}", shape(16, 1, 512), seed)
        return [
            "evaluate", str(ROOT / "gin/evaluate/include.gin"), f"--gin.MODEL_DIR={model}", f"--gin.DATA_DIR={data}",
            f"--gin.RUN_DIR={tmp_path / name}", f"--gin.IncludeConfig.protocols={protocols}",
            "--gin.IncludeConfig.styles=('IL', 'Reg+Eng')", "--gin.IncludeConfig.few_shot=1",
            "--gin.IncludeConfig.max_tokens=4", "--gin.EngineConfig.slots=4",
        ]  # fmt: skip

    assert main(arguments("a", 0, "few_shot", "likelihood")) == 0
    out = capsys.readouterr().out
    assert "Left out of the styles IL and Reg+IL, which have no instruction in them: Armenian." in out
    file = tmp_path / "a" / "evaluations" / "include.json"
    summary, samples = read_summary(file), read_samples(file)
    assert {form: found["all"]["count"] for form, found in summary["include"].items()} == {
        "il": 4, "reg_eng": 8, "il_likelihood": 4, "reg_eng_likelihood": 8,
    }  # fmt: skip
    for sample in samples:
        if sample.log_probs:
            best = max(range(4), key=lambda at: sample.log_probs[at])
            assert (sample.prediction, sample.metrics) == (best, {"acc": float(best == sample.target)})
    assert main(arguments("a", 0, "few_shot", "likelihood")) == 0
    assert "is there for these weights" in capsys.readouterr().out
    assert main(arguments("b", 1, "likelihood")) == 0
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--gin.CompareConfig.name=include"]) == 0
    assert "on include_base_44_il_likelihood" in capsys.readouterr().out


def test_missing_rows_are_named(data, tmp_path):
    with pytest.raises(
        UserError, match=r"no language of INCLUDE is there; put a copy of CohereLabs/include-base-44 at"
    ):
        load(IncludeConfig(data_dir=str(tmp_path)))
    with pytest.raises(UserError, match=r"no 'Turkis'; did you mean.*Turkish"):
        load(IncludeConfig(data_dir=str(data), languages=("Turkis",)))
    with pytest.raises(UserError, match="its validation split has 2 questions, and 5 are wanted"):
        load(IncludeConfig(data_dir=str(data)))
    home = data / "CohereLabs" / "include-base-44" / "Turkish"
    write_rows(home / "test.jsonl", [as_list("Turkish", 0), as_list("Turkish", 1) | {"answer": 7}])
    with pytest.raises(UserError, match=r"Turkish/test\.jsonl:2: field 'answer' is 7"):
        load(IncludeConfig(data_dir=str(data), few_shot=0))
    write_rows(home / "test.jsonl", [as_list("German", 0)])
    with pytest.raises(UserError, match="field 'language' is 'German' in the rows of 'Turkish'"):
        load(IncludeConfig(data_dir=str(data), few_shot=0))
    write_rows(home / "test.jsonl", [as_list("Turkish", 0)])
    (home / "validation.jsonl").unlink()
    with pytest.raises(UserError, match=r"no validation\.jsonl is there; examples come from it"):
        load(IncludeConfig(data_dir=str(data), few_shot=1))


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("IncludeConfig.styles=('ILL',)", "some of 'IL', 'Eng'"),
        ("IncludeConfig.protocols=()", "some of 'few_shot'"),
        ("IncludeConfig.trained_languages=('Turkish',)", "ISO 639-1 codes, such as 'tr'"),
        ("IncludeConfig.few_shot=-1", "0 or more"),
        ("IncludeConfig.limit=0", "at least 1, or None"),
    ],
)
def test_mistakes_are_named(binding, expected):
    bindings = ["EvaluateConfig.model_dir='m'", "EvaluateConfig.measure=@IncludeConfig()", binding]
    with pytest.raises(UserError, match=expected):
        resolve(EvaluateConfig, bindings=bindings)


def test_every_wording_is_of_a_language_of_the_dataset():
    from aya_jax.evaluation.include.languages import LANGUAGES

    assert {wording.name: code for code, wording in WORDINGS.items()}.items() <= LANGUAGES.items()
