"""Translation and summary tasks asked of models whose answers are known: what they are shown, and what they score."""

from __future__ import annotations

import contextlib
import json
import re
from types import SimpleNamespace

import pytest
import sacrebleu

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import HarnessConfig, TranslationConfig
from aya_jax.evaluation.harness import benchmarks, translations
from aya_jax.evaluation.harness.local_data import MissingRows
from aya_jax.evaluation.harness.own_tasks import own_tasks
from aya_jax.evaluation.harness.translations import TranslationScorer
from aya_jax.evaluation.results import write
from aya_jax.evaluation.summaries import ARTICLE_WORDS
from aya_jax.inference.protocol import Completion, Response
from tools.random_model import shape, write_random_model

GERMAN = {
    "dev": ["Eins.", "Zwei.", "Drei."],
    "devtest": ["Guten Morgen allerseits.", "Gestern fiel viel Regen.", "Ende."],
}
ENGLISH = {
    "dev": ["One.", "Two.", "Three."],
    "devtest": ["Good morning everyone.", "Much rain fell yesterday.", "The end."],
}
ARTICLES = [("Die Grenze ist zu.", "Am Montag " + "wort " * 600), ("Ein Zug kam an.", "Am Dienstag kam er.")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return ChatTokenizer.open(str(write_random_model(tmp_path_factory.mktemp("model") / "tiny", shape(32, 2, 128))))


@pytest.fixture
def data(tmp_path):
    for split in GERMAN:
        home = tmp_path / "eval/flores200_dataset" / split
        home.mkdir(parents=True)
        for code, texts in (("deu_Latn", GERMAN), ("eng_Latn", ENGLISH)):
            (home / f"{code}.{split}").write_text("\n".join(texts[split]) + "\n", encoding="utf-8")
    (tmp_path / "eval/xlsum").mkdir()
    for split in ("test", "val"):
        rows = (
            {"id": f"{split}-{n}", "url": "", "title": "", "summary": summary, "text": text}
            for n, (summary, text) in enumerate(ARTICLES)
        )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"eval/xlsum/french_{split}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


@contextlib.contextmanager
def track(label, total):
    yield lambda count: None


def ask(data, tokenizer, tasks, say, **more):
    """(tasks, records, prompts) of a model that says what `say` makes of a prompt's text."""
    config = HarnessConfig(tasks=tasks, data_dir=str(data), **more)
    prompts = []

    class Said:
        name = "said"

        def generate(self, requests):
            for request in requests:
                prompts.append(tokenizer.decode(request.prompt))
                completion = Completion(text=say(prompts[-1]), tokens=(), finish_reason="stop")
                yield Response(id=request.id, completions=(completion,), prompt_tokens=1)

    @contextlib.contextmanager
    def open_generator(longest, samples):
        yield Said()

    loaded = benchmarks.load_tasks(config, pytest.fail)
    with Answers(data / "answers.jsonl") as answers:
        samples, _ = benchmarks.ask_all(
            config, loaded, pytest.fail, open_generator, tokenizer, answers, track, max_length=20_000
        )
    return loaded, samples, prompts


def test_a_perfect_translator_has_100_and_a_silent_one_0(data, tokenizer, tmp_path):
    known = dict(zip(ENGLISH["devtest"] + GERMAN["devtest"], GERMAN["devtest"] + ENGLISH["devtest"], strict=True))

    def perfect(prompt):
        return " " + known[re.findall(r": (.*)\n", prompt)[-1]]

    for say, expected in ((perfect, 100.0), (lambda prompt: "", 0.0)):
        (data / "answers.jsonl").unlink(missing_ok=True)
        _, samples, prompts = ask(data, tokenizer, ("flores_en_de", "flores_de_en"), say)
        scorer = TranslationScorer(TranslationConfig(), (), pytest.fail)
        with Answers(tmp_path / "none.jsonl") as answers:
            _, found = scorer.score(samples, answers, track)
        assert {task: [s["score"] for s in scores] for task, scores in found["corpus_scores"].items()} == {
            "flores_en_de": pytest.approx([expected] * 2),
            "flores_de_en": pytest.approx([expected] * 2),
        }
        assert [sample.metrics["chrf++"] for sample in samples] == pytest.approx([expected] * 6)
    assert "English: Good morning everyone.\nGerman:" in prompts[0]
    assert {(s.family, s.language, s.item) for s in samples if s.doc["id"] == "2"} == {
        ("flores_en_x", "de", "flores_en_x/2"),
        ("flores_x_en", "de", "flores_x_en/2"),
    }


def test_examples_are_the_first_of_dev(data, tokenizer):
    _, _, prompts = ask(data, tokenizer, ("flores_en_de",), lambda prompt: "", few_shot=2)
    shots = "English: One.\nGerman: Eins.\n\nEnglish: Two.\nGerman: Zwei.\n\n"
    assert [prompt.partition("English")[2] for prompt in prompts] == [
        f"{shots}English: {text}\nGerman:".removeprefix("English") for text in ENGLISH["devtest"]
    ]


def test_scores_of_a_corpus_are_sacrebleu_s_and_go_into_the_records(data, tokenizer, tmp_path, monkeypatch):
    said = ["Guten Morgen zusammen.", "Es regnete.", "Ende."]
    turn = iter(said)
    loaded, samples, _ = ask(data, tokenizer, ("flores_en_de",), lambda prompt: next(turn))

    class Stand:
        signature = "model:x"

        def __init__(self, config):
            assert config.comet == "model.ckpt"

        def scores(self, segments, answers, track):
            assert [tuple(s) for s in segments] == list(zip(ENGLISH["devtest"], said, GERMAN["devtest"], strict=True))
            return [0.5, 0.25, 1.0]

    def no_pieces(file):
        raise UserError("no pieces")

    monkeypatch.setattr(translations, "Comet", Stand)
    monkeypatch.setattr(translations, "open_pieces", no_pieces)
    heard = []
    scorer = TranslationScorer(TranslationConfig(comet="model.ckpt"), loaded.values(), heard.append)
    assert heard == ["spBLEU is left out: no pieces."]
    with Answers(tmp_path / "answers.jsonl") as answers:
        samples, found = scorer.score(samples, answers, track)
    chrf, bleu, comet = found["corpus_scores"]["flores_en_de"]
    assert chrf["score"] == pytest.approx(sacrebleu.corpus_chrf(said, [GERMAN["devtest"]], word_order=2).score)
    assert bleu["score"] == pytest.approx(sacrebleu.corpus_bleu(said, [GERMAN["devtest"]]).score)
    assert (comet["name"], comet["score"], comet["signature"]) == ("comet", pytest.approx(175 / 3), "model:x")
    assert found["corpus_scores_missing"] == {"spbleu": "no pieces"}
    assert [sample.metrics["comet"] for sample in samples] == [0.5, 0.25, 1.0]
    summary = write(tmp_path / "summary.json", found, samples)
    assert summary["families"]["flores_en_x"]["comet"]["languages"]["de"]["mean"] == pytest.approx(1.75 / 3)
    with pytest.raises(UserError, match=r"TranslationConfig\.spm: no pieces"):
        TranslationScorer(TranslationConfig(spm="f"), loaded.values(), heard.append)


def test_where_nothing_is_translated_nothing_is_looked_for(monkeypatch):
    monkeypatch.setattr(translations, "open_pieces", pytest.fail)
    task = SimpleNamespace(config=SimpleNamespace(process_results=None))
    scorer = TranslationScorer(TranslationConfig(comet="none"), [task], pytest.fail)
    assert scorer.score([], None, track) == ([], {"corpus_scores": {}})


def test_summaries_are_asked_for_after_the_article(data, tokenizer):
    say = {"Montag": " Die Grenze ist auf.\n", "Dienstag": " Ein Zug kam an."}
    _, samples, prompts = ask(
        data,
        tokenizer,
        ("xlsum_fr",),
        lambda prompt: next(v for k, v in say.items() if k in prompt.split("Article")[-1]),
    )
    assert [sample.metrics["rougeL"] for sample in samples] == pytest.approx([3 / 4, 1.0])
    for prompt, (_, text) in zip(sorted(prompts), sorted(ARTICLES, key=lambda a: a[1]), strict=True):
        shown, _, rest = prompt.partition("Article: ")[2].partition("\n\n")
        assert rest == "Summarize the article in one sentence in French.\nSummary:"
        assert shown.split() == text.split()[:ARTICLE_WORDS]
    assert {(s.family, s.language, s.item) for s in samples} == {
        ("xlsum", "fr", "xlsum_fr/test-0"),
        ("xlsum", "fr", "xlsum_fr/test-1"),
    }
    _, _, prompts = ask(data, tokenizer, ("xlsum_fr",), lambda prompt: "", few_shot=1, limit=1)
    assert prompts[0].count("Summary: Die Grenze ist zu.\n\nArticle: Am Montag") == 1


def test_rows_that_are_not_there_are_asked_for(data):
    config = HarnessConfig(tasks=("xlsum_de",), data_dir=str(data))
    with pytest.raises(UserError, match="no task 'xlsum_de'; did you mean"):
        benchmarks.load_tasks(config, pytest.fail)
    with pytest.raises(
        MissingRows, match=r"XL-Sum in ja: .* has no test and no validation rows; put a copy at .*japanese_"
    ):
        own_tasks(str(data))["xlsum_ja"]()
    said = []
    config = HarnessConfig(tasks=("flores_*_en",), data_dir=str(data))
    assert list(benchmarks.load_tasks(config, said.append)) == ["flores_de_en"]
    assert "has no rows of them: flores_ar_en" in said[0]


def test_an_article_without_a_summary_is_named(data):
    file = data / "eval/xlsum/french_test.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("Ein Zug kam an.", ""), encoding="utf-8")
    with pytest.raises(UserError, match=r"french_test\.jsonl, line 2: no 'summary'"):
        own_tasks(str(data))["xlsum_fr"]()
