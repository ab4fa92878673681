"""FLORES-200 and FLORES+ (NLLB Team 2022): the same sentences in many languages, from a folder or the Hugging Face hub.

A folder has them in any of the layouts that they are published in, the first of which that is there is read, for `<split>` both
`dev` (997 sentences, examples are from there) and `devtest` (1,012):

  * `openlanguagedata/flores_plus/<split>/<code>.parquet`, as in the hub's repository (.jsonl, .jsonl.gz);
  * `openlanguagedata/flores_plus/<code>/<split>.parquet`, and one file of all languages as `.../default/<any name>.parquet`
    whose rows say `iso_639_3`, `iso_15924`, and `split` where the file's name does not;
  * `facebook/flores/<code>/<split>*.parquet` with a field `sentence`, `facebook/flores/all/<split>*` with `sentence_<code>`;
  * `eval/flores200_dataset/<split>/<code>.<split>`, a sentence a line, from the archive of FLORES-200;
  * `eval/floresp*/<split>/<split>.<code>`, a sentence a line, from the archive of FLORES+.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aya_jax.config import UserError
from aya_jax.evaluation.harness.local_data import DATA_SUFFIXES, MissingRows, read_hub, read_rows
from aya_jax.evaluation.languages import FLORES

SPLITS = ("dev", "devtest")
_PLUS, _FACEBOOK = "openlanguagedata/flores_plus", "facebook/flores"


class Sentences(NamedTuple):
    """One language's sentences of one split.

    Attributes:
      source: the file, or what stands for it in a message.
      texts: by id.
    """

    source: str
    texts: Mapping[str, str]


def pairs(folder: str | None, source: str, target: str, split: str) -> list[dict[str, str]]:
    """Rows `{id, source, reference}` of two languages.

    Args:
      folder: with copies; None: the hub's.
      source: ISO 639-1 code of what is translated.
      target: of what it is translated into.
      split: "dev" or "devtest".

    Raises:
      UserError: the sentences are not there (`MissingRows`), one is no text, or a sentence is there in one language only.
    """
    left, right = (sentences(folder, language, split) for language in (source, target))
    for here, there in ((left, right), (right, left)):
        lacking = [name for name in here.texts if name not in there.texts]
        if lacking:
            raise UserError(
                f"{there.source}: has no sentence {lacking[0]!r}, which {here.source} has ({len(lacking)} of "
                f"{len(here.texts)} are missing): both have to be of one release, and whole"
            )
    return [{"id": name, "source": text, "reference": right.texts[name]} for name, text in left.texts.items()]


def sentences(folder: str | None, language: str, split: str) -> Sentences:
    """One language's sentences.

    Raises:
      UserError: they are not there (`MissingRows`), or one is no text; with file and line.
    """
    codes = _codes(language)
    if folder is None:
        return _from_hub(codes[-1], split)
    home = Path(folder)
    for code in codes:
        for file, field in _row_files(home, code, split):
            rows = read_rows(file)
            if any(field in row for row in rows):  # a file of all languages may have this one or not
                return _of_rows(str(file), rows, field)
        for file in _line_files(home, code, split):
            return Sentences(str(file), dict(_lines(file)))
        for file in _data_files(home / _PLUS / "default", ""):
            found = _of_all_languages(file, split).get(code)
            if found:
                return Sentences(str(file), found)
    raise MissingRows(
        f"FLORES, {split} in {language}: not in {folder}; put a copy at {folder}/{_PLUS}/{split}/{codes[-1]}.parquet or "
        f"{folder}/eval/flores200_dataset/{split}/{codes[0]}.{split}, or read the Hugging Face hub's with --gin.DATA_DIR=None"
    )


def _codes(language: str) -> tuple[str, ...]:
    """FLORES-200's code and, where it is another, FLORES+'s: Chinese is Mandarin there."""
    code = FLORES[language]
    return (code, code.replace("zho", "cmn")) if language == "zh" else (code,)


def _from_hub(code: str, split: str) -> Sentences:
    try:
        rows = read_hub(_PLUS, code)[split]
    except MissingRows as error:
        raise MissingRows(
            f"{error}. FLORES+ is given to those who accept its conditions: do so at https://huggingface.co/datasets/{_PLUS} "
            "and log in with `hf auth login`"
        ) from error
    return _of_rows(f"{_PLUS} ({code}, {split})", list(rows), "text")


def _row_files(home: Path, code: str, split: str) -> Iterator[tuple[Path, str]]:
    """Files of rows of one split, with the field that has the sentence."""
    for file in _data_files(home / _PLUS / split, f"{code}."):
        yield file, "text"
    for file in _data_files(home / _PLUS / code, split, exactly=True):
        yield file, "text"
    for file in _data_files(home / _FACEBOOK / code, split, exactly=True):
        yield file, "sentence"
    for file in _data_files(home / _FACEBOOK / "all", split, exactly=True):
        yield file, f"sentence_{code}"


def _data_files(folder: Path, prefix: str, exactly: bool = False) -> list[Path]:
    """Files of rows; with `exactly`, of one split: "dev.parquet" and "dev-00000-of-00001.parquet" are, "devtest" is not."""
    found = sorted(file for file in folder.glob(f"{prefix}*") if file.name.endswith(DATA_SUFFIXES))
    return [file for file in found if file.name[len(prefix)] in ".-"] if exactly else found


def _line_files(home: Path, code: str, split: str) -> Iterator[Path]:
    yield from (home / "eval" / "flores200_dataset" / split).glob(f"{code}.{split}")
    yield from sorted((home / "eval").glob(f"floresp*/{split}/{split}.{code}"))


def _of_rows(source: str, rows: list[dict[str, Any]], field: str) -> Sentences:
    return Sentences(source, dict(_distinct(source, ((row.get("id"), row.get(field)) for row in rows), field)))


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # texts may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    return _distinct(str(file), enumerate(lines, 1), "sentence")


def _distinct(source: str, found: Iterable[tuple[Any, Any]], field: str) -> Iterator[tuple[str, str]]:
    """(id, text), each looked at."""
    seen: dict[str, int] = {}
    for number, (name, text) in enumerate(found, 1):
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            raise UserError(f"{source}, line {number}: 'id' is {name!r}; a number or a text is needed")
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{source}, line {number}: {field!r} is {text!r:.60}; every sentence of FLORES is a text: take a whole copy"
            )
        first = seen.setdefault(str(name), number)
        if first != number:
            raise UserError(f"{source}, line {number}: 'id' {name!r} is that of line {first} too; take a whole copy")
        yield str(name), text.strip()


@functools.lru_cache(maxsize=4)  # some hundred languages, of which each task wants two
def _of_all_languages(file: Path, split: str) -> Mapping[str, Mapping[str, str]]:
    """By code, from one file of rows of all languages."""
    of_file = file.name.split(".")[0].split("-")[0]
    found: dict[str, list[tuple[Any, Any]]] = {}
    for row in read_rows(file):
        if row.get("split", of_file) == split:
            code = f"{row.get('iso_639_3')}_{row.get('iso_15924')}"
            found.setdefault(code, []).append((row.get("id"), row.get("text")))
    return {code: dict(_distinct(f"{file} ({code})", rows, "text")) for code, rows in found.items()}
