"""A benchmark of invented questions in two languages, as a task of the harness with its rows in a folder."""

from __future__ import annotations

import json
from pathlib import Path

LANGUAGES = ("de", "he")
QUESTIONS = 12
CHOICE = """
task: tiny_{language}
dataset_path: invented/tiny
dataset_name: {language}
output_type: multiple_choice
test_split: test
fewshot_split: test
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C"]
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""
ANSWER = """
task: says_{language}
dataset_path: invented/tiny
dataset_name: {language}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 12
metric_list:
  - metric: exact_match
"""


def write(folder: Path, questions: int = QUESTIONS) -> tuple[str, str]:
    """(task folder, data folder); the right answers are A, B, C in turn."""
    tasks, data = folder / "tasks", folder / "data"
    tasks.mkdir(parents=True)
    for language in LANGUAGES:
        for name, template in (("tiny", CHOICE), ("says", ANSWER)):
            (tasks / f"{name}_{language}.yaml").write_text(template.format(language=language), encoding="utf-8")
        home = data / "invented" / "tiny" / language
        home.mkdir(parents=True)
        word = {"de": "Frage", "he": "שאלה"}[language]
        rows = ({"question": f"{word} {n}?", "answer": "ABC"[n % 3], "id": f"q{n}"} for n in range(questions))
        (home / "test.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
    return str(tasks), str(data)
