"""Benchmarks that lm-evaluation-harness has no task for, or none that runs: SIB-200, EXAMS, XQuAD, NTREX-128.

Made in Python as the harness makes its own from YAML, from files in the data folder:
`eval/sib200/test.<language>.jsonl`, `eval/exams/test.<language>.jsonl`, `eval/ntrex/en-<language>.jsonl.gz`. Their
names are `sib200_<language>`, `exams_<language>`,
`xquad_<language>`, `ntrex_en_<language>` and `ntrex_<language>_en`.
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
from aya_jax.evaluation.harness.local_data import find, read_rows, required
from aya_jax.evaluation.harness.task_index import HOME
from aya_jax.evaluation.languages import ENGLISH_NAMES
from aya_jax.evaluation.translation import sentence_scores

Config = dict[str, Any]

TOPICS = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")


def own_tasks(folder: str | None) -> dict[str, Callable[[], Config]]:
    """What makes the harness's configuration of each task that the folder has files for, by the task's name."""
    found: dict[str, Callable[[], Config]] = {}
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
        rows,
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
        rows,
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
    return _config(
        f"ntrex_{source}_{target}",
        texts,
        output_type="generate_until",
        doc_to_text=f"{ENGLISH_NAMES[source]}: {{{{source}}}}\n{ENGLISH_NAMES[target]}:",
        doc_to_target=" {{reference}}",
        generation_kwargs={"until": ["\n"], "do_sample": False, "max_gen_toks": 256},
        process_results=sentence_scores,
        metric_list=[{"metric": "chrf++", "aggregation": "mean", "higher_is_better": True}],
    )


def _xquad(language: str, folder: str) -> Config:
    """Questions on a text (Artetxe et al. 2020), with the harness's prompts.

    The harness's task itself imports a part of transformers that its release 5 no longer has.
    """
    name = f"xquad_{language}"
    manager = TaskManager(include_path=[HOME / "xquad"], include_defaults=False)
    rows = find(Path(folder), "google/xquad", f"xquad.{language}")
    return _config(
        name,
        rows["validation"],
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


def _config(name: str, rows: list[dict[str, Any]], **more: Any) -> Config:
    import datasets

    return {
        "task": name,
        "dataset_path": "json",
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
        "test_split": "test",
        "metadata": {"version": 1.0},
        **more,
    }
