"""Benchmarks that lm-evaluation-harness has no task for, or none that runs: SIB-200, EXAMS, XQuAD, NTREX-128, FLORES, XL-Sum.

Made in Python as the harness makes its own from YAML. Those of files in the data folder are there where the files are:
`sib200_<language>` (`eval/sib200/test.<language>.jsonl`), `exams_<language>` (`eval/exams/test.<language>.jsonl`),
`xquad_<language>`, `ntrex_en_<language>` and `ntrex_<language>_en` (`eval/ntrex/en-<language>.jsonl.gz`). Those that the hub
has too are always there: `flores_en_<language>` and `flores_<language>_en`, `xlsum_<language>`. The harness has FLORES for
African, Arabic, Basque and Iberian languages, and XL-Sum in African ones and Spanish, scored without letters outside ASCII.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from aya_jax.config import UserError
from aya_jax.evaluation.harness import flores
from aya_jax.evaluation.harness.local_data import MissingRows, find, read_hub, read_rows, required
from aya_jax.evaluation.harness.task_index import HOME
from aya_jax.evaluation.languages import ENGLISH_NAMES, FLORES, XLSUM
from aya_jax.evaluation.summaries import ROUGE, article, summary_scores
from aya_jax.evaluation.translation import CHRF, sentence_scores

Config = dict[str, Any]

_XLSUM = "csebuetnlp/xlsum"
TOPICS = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")


def own_tasks(folder: str | None) -> dict[str, Callable[[], Config]]:
    """What makes the harness's configuration of each task, by the task's name; with None of those that the hub has rows of."""
    found: dict[str, Callable[[], Config]] = {}
    for language in FLORES:
        if language != "en":
            found[f"flores_en_{language}"] = functools.partial(_flores, "en", language, folder)
            found[f"flores_{language}_en"] = functools.partial(_flores, language, "en", folder)
    for language in XLSUM:
        found[f"xlsum_{language}"] = functools.partial(_xlsum, language, folder)
    if folder is None:
        return found
    home = Path(folder) / "eval"
    for language, file in _by_language(home / "sib200", "test.", ".jsonl"):
        found[f"sib200_{language}"] = functools.partial(_sib200, language, file)
    for language, file in _by_language(home / "exams", "test.", ".jsonl"):
        found[f"exams_{language}"] = functools.partial(_exams, language, file)
    for language, _ in _by_language(home / "xquad", "xquad.", ".jsonl.gz"):
        found[f"xquad_{language}"] = functools.partial(_xquad, language, folder)
    for language, file in _by_language(home / "ntrex", "en-", ".jsonl.gz"):
        found[f"ntrex_en_{language}"] = functools.partial(_ntrex, "en", language, file)
        found[f"ntrex_{language}_en"] = functools.partial(_ntrex, language, "en", file)
    return found


def _by_language(folder: Path, before: str, after: str) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.glob(f"{before}*{after}")):
        language = file.name[len(before) : -len(after)]
        if language not in ENGLISH_NAMES:
            raise UserError(f"{file}: no language {language!r} is known; known are {', '.join(ENGLISH_NAMES)}")
        yield language, file


def _sib200(language: str, file: Path) -> Config:
    """Topic classification (Adelani et al. 2024), the seven topics as continuations."""
    rows = required(file, read_rows(file), "index_id", "category", "text")
    for number, row in enumerate(rows, 1):
        if row["category"] not in TOPICS:
            raise UserError(f"{file}, line {number}: 'category' is {row['category']!r}; topics are {', '.join(TOPICS)}")
    return _config(
        f"sib200_{language}",
        {"test": rows},
        output_type="multiple_choice",
        doc_to_text=f"Text: {{{{text}}}}\nTopic ({', '.join(TOPICS)}):",
        doc_to_choice=list(TOPICS),
        doc_to_target="category",
        metric_list=[
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
        ],
    )


def _exams(language: str, file: Path) -> Config:
    """School examinations (Hardalov et al. 2020), the letters as continuations."""
    rows = [_exam_question(file, number, row) for number, row in enumerate(read_rows(file), 1)]
    return _config(
        f"exams_{language}",
        {"test": rows},
        output_type="multiple_choice",
        doc_to_text="{{stem.strip()}}\n{% for c in choices %}{{labels[loop.index0]}}. {{c}}\n{% endfor %}Answer:",
        doc_to_choice="{{labels}}",
        doc_to_target="{{labels.index(answer)}}",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )


def _exam_question(file: Path, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    asked = row.get("question") or {}
    choices, answer = asked.get("choices") or [], row.get("answerKey")
    labels = [choice["label"] for choice in choices]
    if not asked.get("stem") or len(labels) < 2 or answer not in labels or len(set(labels)) < len(labels):
        raise UserError(
            f"{file}, line {number}: 'answerKey' is {answer!r} and the choices are labelled {labels}; a question has a text, "
            "at least two choices of different labels, and one of them is the answer"
        )
    return {
        "id": row["id"],
        "stem": asked["stem"],
        "choices": [choice["text"] for choice in choices],
        "labels": labels,
        "answer": answer,
        "subject": (row.get("info") or {}).get("subject", ""),
    }


def _ntrex(source: str, target: str, file: Path) -> Config:
    """Translation of news (Federmann et al. 2022); scored by `translation` from the answers."""
    rows = required(file, read_rows(file), "id", "en", "tgt")
    texts = [
        {"id": row["id"], "source": row["en"], "reference": row["tgt"]}
        if source == "en"
        else {"id": row["id"], "source": row["tgt"], "reference": row["en"]}
        for row in rows
    ]
    return _translation(f"ntrex_{source}_{target}", source, target, {"test": texts})


def _flores(source: str, target: str, folder: str | None) -> Config:
    """Translation of Wikimedia's texts (NLLB Team 2022), few-shot examples from `dev`; scored as NTREX is."""
    dev, test = (flores.pairs(folder, source, target, split) for split in flores.SPLITS)
    return _translation(
        f"flores_{source}_{target}", source, target, {"test": test, "dev": dev}, **_examples_from("dev")
    )


def _translation(name: str, source: str, target: str, rows: Mapping[str, list[dict[str, Any]]], **more: Any) -> Config:
    """Translation of a sentence: each language's name before its sentence, and the answer up to the line's end."""
    return _config(
        name,
        rows,
        output_type="generate_until",
        doc_to_text=f"{ENGLISH_NAMES[source]}: {{{{source}}}}\n{ENGLISH_NAMES[target]}:",
        doc_to_target="{{reference}}",
        generation_kwargs={"until": ["\n"], "do_sample": False, "max_gen_toks": 256},
        process_results=sentence_scores,
        metric_list=[{"metric": CHRF, "aggregation": "mean", "higher_is_better": True}],
        **more,
    )


def _xlsum(language: str, folder: str | None) -> Config:
    """Summaries of the BBC's articles (Hasan et al. 2021): one sentence that says what the article says.

    What to do stands after the article: where a prompt is too long for a model its beginning goes, and the request stays.
    """
    name, splits = XLSUM[language], ("test", "validation")
    if folder is None:
        of_hub = read_hub(_XLSUM, name)
        rows = {split: list(of_hub[split]) for split in splits}
    else:
        rows = find(Path(folder), _XLSUM, name, splits) or {}
    missing = [split for split in splits if split not in rows]
    if missing:
        raise MissingRows(
            f"XL-Sum in {language}: {folder} has no {' and no '.join(missing)} rows; put a copy at {folder}/eval/xlsum/{name}_"
            f"{{test,val}}.jsonl or {folder}/{_XLSUM}/{name}/<split>.parquet, or read the hub's with --gin.DATA_DIR=None"
        )
    return _config(
        f"xlsum_{language}",
        {split: required(Path(_XLSUM, name, split), rows[split], "id", "text", "summary") for split in splits},
        output_type="generate_until",
        doc_to_text=functools.partial(_article_to_sum_up, ENGLISH_NAMES[language]),
        doc_to_target="{{summary}}",
        generation_kwargs={"until": ["\n"], "do_sample": False, "max_gen_toks": 128},
        process_results=summary_scores,
        metric_list=[{"metric": ROUGE, "aggregation": "mean", "higher_is_better": True}],
        **_examples_from("validation"),
    )


def _article_to_sum_up(language: str, doc: Mapping[str, Any]) -> str:
    return f"Article: {article(doc['text'])}\n\nSummarize the article in one sentence in {language}.\nSummary:"


def _examples_from(split: str) -> Config:
    """The first rows of a split as few-shot examples, the same for every question."""
    return {"fewshot_split": split, "fewshot_config": {"sampler": "first_n"}}


def _xquad(language: str, folder: str) -> Config:
    """Questions on a text (Artetxe et al. 2020), with the harness's prompts.

    The harness's task itself imports a part of transformers that its release 5 no longer has.
    """
    name = f"xquad_{language}"
    manager = TaskManager(include_path=[HOME / "xquad"], include_defaults=False)
    rows = find(Path(folder), "google/xquad", f"xquad.{language}")
    return _config(
        name,
        {"test": rows["validation"]},
        output_type="generate_until",
        doc_to_text=manager.task_index[name].cfg["doc_to_text"],
        doc_to_target="{{answers['text'][0]}}",
        generation_kwargs={"until": ["\n"], "do_sample": False},
        process_results=answer_scores,
        metric_list=[
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("exact_match", "f1")
        ],
    )


def answer_scores(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 of words against the best of the right answers (Rajpurkar et al. 2016, section 6.1)."""
    said = _answer_words(results[0])
    pairs = [(float(said == right), _f1(said, right)) for right in map(_answer_words, doc["answers"]["text"])]
    return {"exact_match": max(exact for exact, _ in pairs), "f1": max(f1 for _, f1 in pairs)}


def _answer_words(text: str) -> list[str]:
    """Lower-cased words without punctuation and English articles, as SQuAD's own script has them."""
    kept = "".join(c for c in text.lower() if not unicodedata.category(c).startswith("P"))
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    same = sum((Counter(said) & Counter(right)).values())
    return 2 * same / (len(said) + len(right))


def _config(name: str, rows: Mapping[str, list[dict[str, Any]]], **more: Any) -> Config:
    import datasets

    return {
        "task": name,
        "dataset_path": "json",
        "custom_dataset": lambda **_: {split: datasets.Dataset.from_list(found) for split, found in rows.items()},
        "test_split": "test",
        "metadata": {"version": 1.0},
        **more,
    }
