"""Benchmarks' rows from a folder in place of the Hugging Face hub: for machines without a network.

`reading_from` stands between lm-evaluation-harness and `datasets.load_dataset` while tasks are made. A dataset is looked up

  * in the general layout `<folder>/<name on the hub>/<configuration, or "default">/<split>.jsonl` (.jsonl.gz, .parquet; in
    shards too, `<split>-00000-of-00002.parquet` or `<split>/0000.parquet`);
  * in the layouts that some benchmarks are published in (`LAYOUTS`): `eval/xcopa/test.it.jsonl`, `eval/mgsm/mgsm_de.tsv` ...;

Where no folder is named, it is the hub's. Rows take the hub's schema, so that the harness's own task files read them. A
row that lacks a field stops the run with its file and line: a score is never made of the rest.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.rows import read_rows as read_json_lines


class MissingRows(UserError):
    """A dataset is not where it was looked for."""


Rows = dict[str, list[dict[str, Any]]]
DATA_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_SHARD = re.compile(r"-\d+-of-\d+$")
# Datasets that are programs on the hub, which `datasets` no longer runs: the hub's own copy of their rows.
_PROGRAMS = ("csebuetnlp/xlsum",)


@contextlib.contextmanager
def reading_from(folder: str | None) -> Iterator[None]:
    """Makes the harness's tasks read this folder, or with None the hub, until the context ends.

    Raises:
      UserError: a dataset is not there (`MissingRows`), or a row is not as its benchmark has it.
    """
    import lm_eval.api.task as harness

    library = harness.datasets

    class Shim:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        @staticmethod
        def load_dataset(path: str, name: str | None = None, **more: Any) -> Any:
            if folder is not None:
                rows = find(Path(folder), path, name)
                if rows is None:
                    raise MissingRows(
                        f"dataset {path} ({name or 'default'}): not in {folder}; put a copy at {folder}/{path}/"
                        f"{name or 'default'}/<split>.jsonl, or read the Hugging Face hub's with --gin.DATA_DIR=None"
                    )
                return library.DatasetDict({split: library.Dataset.from_list(found) for split, found in rows.items()})
            return read_hub(path, name, library=library, **more)

    bars = harness.tqdm
    harness.datasets, harness.tqdm = Shim(), lambda rows, **_: rows  # its bars would run into ours
    try:
        yield
    finally:
        harness.datasets, harness.tqdm = library, bars


def read_hub(path: str, name: str | None, *, library: Any = None, **more: Any) -> Any:
    """The rows of a dataset by split, from the Hugging Face hub.

    Args:
      path: the dataset's name on the hub.
      name: its configuration.
      library: that reads it; None: `datasets`.
      **more: for its `load_dataset`.

    Raises:
      MissingRows: the hub does not give it.
    """
    if library is None:
        import datasets as library
    which = {"data_dir": name, "revision": "refs/convert/parquet"} if path in _PROGRAMS else {"name": name}
    try:
        return library.load_dataset(path=path, **{**more, **which})
    except Exception as error:  # the hub's client has many ways to say no
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MissingRows(
            f"dataset {path} ({name or 'default'}): the Hugging Face hub does not give it: {reason}; without a network "
            f"put a copy at DIR/{path}/{name or 'default'}/<split>.jsonl and add --gin.DATA_DIR=DIR"
        ) from error


def find(folder: Path, path: str, name: str | None, splits: Collection[str] | None = None) -> Rows | None:
    """The rows of a dataset by split; None where the folder has none of them.

    Args:
      folder: where copies are.
      path: the dataset's name on the hub.
      name: its configuration.
      splits: those that are wanted of a copy in the general layout; None: all.
    """
    home = folder / path / (name or "default")
    if home.is_dir():
        found: Rows = {}
        for file in sorted((*home.iterdir(), *home.glob("*/*"))):
            split = _SHARD.sub("", file.name.split(".")[0]) if file.parent == home else file.parent.name
            if file.name.endswith(DATA_SUFFIXES) and (splits is None or split in splits):
                found.setdefault(split, []).extend(read_rows(file))
        return found or None
    layout = LAYOUTS.get(path)
    return layout(folder, name or "default") or None if layout else None


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL (also gzipped) or Parquet file.

    Raises:
      UserError: it cannot be read, or a line is no JSON object; with file and line.
    """
    if file.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(file).to_pylist()
    return [dict(row.fields) for row in read_json_lines(file)]


def required(file: Path, rows: list[dict[str, Any]], *fields: str) -> list[dict[str, Any]]:
    """The rows as they are, each of which has these fields, none of them empty.

    Raises:
      UserError: one lacks a field; it names the file, the first such line and field, and how many there are.
    """
    bad = [
        (number, field)
        for number, row in enumerate(rows, 1)
        for field in fields
        if row.get(field) is None or row.get(field) == ""
    ]
    if bad:
        lines = len({number for number, _ in bad})
        raise UserError(
            f"{file}, line {bad[0][0]}: no {bad[0][1]!r} ({lines} of {len(rows)} rows lack a field that the benchmark needs); "
            "mend the file, or take the rows out and say so where you report the score"
        )
    return rows


def _xcopa(folder: Path, language: str) -> Rows:
    names = {"test": "test", "validation": "val"}
    return _files(
        {split: folder / "eval" / "xcopa" / f"{name}.{language}.jsonl" for split, name in names.items()},
        lambda file: _choices_of_xcopa(
            file, required(file, read_rows(file), "premise", "choice1", "choice2", "question")
        ),
    )


def _choices_of_xcopa(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        if row.get("label") not in (0, 1) or row["question"] not in ("cause", "effect"):
            raise UserError(
                f"{file}, line {number}: 'label' is {row.get('label')!r} and 'question' {row['question']!r}; XCOPA has "
                "0 or 1, and 'cause' or 'effect'"
            )
    return rows


def _mgsm(folder: Path, language: str) -> Rows:
    home = folder / "eval" / "mgsm"
    found = _files({"test": home / f"mgsm_{language}.tsv"}, _mgsm_questions)
    examples = home / "exemplars.jsonl"
    if found and examples.is_file():
        rows = required(examples, read_rows(examples), "lang", "question", "answer")
        found["train"] = [_mgsm_example(row) for row in rows if row["lang"] == language]
    return found


def _mgsm_questions(file: Path) -> list[dict[str, Any]]:
    rows = []
    with file.open(encoding="utf-8", newline="") as lines:
        for number, line in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            value = _whole_number(line[1]) if len(line) == 2 else None
            if value is None:
                raise UserError(
                    f"{file}, line {number}: a question, a tab and a whole number are wanted, not {len(line)} columns"
                )
            rows.append({"question": line[0], "answer": None, "answer_number": value, "equation_solution": None})
    return rows


def _mgsm_example(row: Mapping[str, str]) -> dict[str, Any]:
    numbers = re.findall(r"-?\d[\d.,]*", row["answer"])
    value = _whole_number(numbers[-1].rstrip(".,")) if numbers else None
    return {"question": row["question"], "answer": row["answer"], "answer_number": value, "equation_solution": None}


def _whole_number(text: str) -> int | None:
    digits = text.replace(",", "").strip()
    return int(digits) if re.fullmatch(r"-?\d+", digits) else None


def _xquad(folder: Path, name: str) -> Rows:
    def read(file: Path) -> list[dict[str, Any]]:
        rows = required(file, read_rows(file), "id", "context", "question", "answers")
        keys = ("text", "answer_start")
        return [row | {"answers": {key: [a[key] for a in row["answers"]] for key in keys}} for row in rows]

    return _files({"validation": folder / "eval" / "xquad" / f"{name}.jsonl.gz"}, read)


def _gsm8k(folder: Path, name: str) -> Rows:
    files = {"test": folder / "eval" / "gsm8k" / "test.jsonl", "train": folder / "instruct" / "gsm8k_train.jsonl.gz"}
    found = _files(files, lambda file: required(file, read_rows(file), "question", "answer"))
    return found if name == "main" and "test" in found else {}


def _xlsum(folder: Path, name: str) -> Rows:
    names = {"validation": "val", "test": "test"}  # nothing asks for the hundreds of thousands to train on
    return _files(
        {split: folder / "eval" / "xlsum" / f"{name}_{of}.jsonl" for split, of in names.items()},
        lambda file: required(file, read_rows(file), "id", "text", "summary"),
    )


def _files(files: Mapping[str, Path], read: Callable[[Path], list[dict[str, Any]]]) -> Rows:
    return {split: read(file) for split, file in files.items() if file.is_file()}


LAYOUTS: Mapping[str, Callable[[Path, str], Rows]] = {
    "cambridgeltl/xcopa": _xcopa,
    "juletxara/mgsm": _mgsm,
    "google/xquad": _xquad,
    "openai/gsm8k": _gsm8k,
    "csebuetnlp/xlsum": _xlsum,
}
