"""FLORES in every layout that it is published in, and what is said of a copy that is not whole."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.harness.flores import pairs, sentences
from aya_jax.evaluation.harness.local_data import MissingRows
from aya_jax.evaluation.languages import ENGLISH_NAMES, FLORES

ENGLISH = {"dev": ["One.", "Two."], "devtest": ["Good morning.", "Rain fell.", "The end."]}
CHINESE = {"dev": ["一。", "二。"], "devtest": ["早上好。", "下雨了。", "完。"]}


def rows(texts, field="text", **more):
    return [{"id": number, field: text, "domain": "wikinews", **more} for number, text in enumerate(texts, 7)]


def write_jsonl(file, found):
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


def write_parquet(file, found):
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), file)


def each(folder, chinese):
    for code, of_language in (("eng_Latn", ENGLISH), (chinese, CHINESE)):
        for split, texts in of_language.items():
            yield folder, code, split, texts


def as_in_the_repository(folder):
    for home, code, split, texts in each(folder, "cmn_Hans"):
        write_parquet(home / "openlanguagedata/flores_plus" / split / f"{code}.parquet", rows(texts))
    write_parquet(folder / "openlanguagedata/flores_plus/devtest/cmn_Hant.parquet", rows(["早安。"]))


def as_configurations(folder):
    for home, code, split, texts in each(folder, "cmn_Hans"):
        write_jsonl(home / "openlanguagedata/flores_plus" / code / f"{split}.jsonl.gz", rows(texts))


def as_one_file(folder):
    found = [
        row
        for _, code, split, texts in each(folder, "cmn_Hans")
        for row in rows(texts, iso_639_3=code[:3], iso_15924=code[4:], glottocode="x", split=split)
    ]
    write_jsonl(folder / "openlanguagedata/flores_plus/default/all.jsonl", found[::-1])


def as_one_file_a_split(folder):
    for split in ("dev", "devtest"):
        found = [
            row
            for _, code, of_split, texts in each(folder, "cmn_Hans")
            if of_split == split
            for row in rows(texts, iso_639_3=code[:3], iso_15924=code[4:])
        ]
        write_parquet(folder / f"openlanguagedata/flores_plus/default/{split}-00000-of-00001.parquet", found)


def as_facebook_s(folder):
    for home, code, split, texts in each(folder, "zho_Hans"):
        write_parquet(home / "facebook/flores" / code / f"{split}-00000-of-00001.parquet", rows(texts, "sentence"))


def as_facebook_s_of_all(folder):
    for split, texts in ENGLISH.items():
        found = [
            row | {"sentence_zho_Hans": chinese}
            for row, chinese in zip(rows(texts, "sentence_eng_Latn"), CHINESE[split], strict=True)
        ]
        write_jsonl(folder / "facebook/flores/all" / f"{split}.jsonl", found)


def as_the_archive(folder):
    for home, code, split, texts in each(folder, "zho_Hans"):
        file = home / "eval/flores200_dataset" / split / f"{code}.{split}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")


def as_the_newer_archive(folder):
    for home, code, split, texts in each(folder, "cmn_Hans"):
        file = home / "eval/floresp-v2.0-rc.3" / split / f"{split}.{code}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(texts), encoding="utf-8")


LAYOUTS = (
    as_in_the_repository, as_configurations, as_one_file, as_one_file_a_split, as_facebook_s, as_facebook_s_of_all,
    as_the_archive, as_the_newer_archive,
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_has_the_same_sentences(tmp_path, layout):
    layout(tmp_path)
    for split in ("dev", "devtest"):
        expected = sorted(zip(ENGLISH[split], CHINESE[split], strict=True))
        found = pairs(str(tmp_path), "en", "zh", split)
        assert sorted((row["source"], row["reference"]) for row in found) == expected
        turned = pairs(str(tmp_path), "zh", "en", split)
        assert sorted((row["reference"], row["source"]) for row in turned) == expected
        assert {row["id"] for row in found} == {row["id"] for row in turned}
    with pytest.raises(MissingRows, match=r"FLORES, devtest in de: not in .*deu_Latn\.parquet.*--gin\.DATA_DIR=None"):
        pairs(str(tmp_path), "en", "de", "devtest")


def test_a_copy_without_dev_has_no_examples(tmp_path):
    """And those of `devtest` are not taken for them, though its name begins alike."""
    write_jsonl(tmp_path / "openlanguagedata/flores_plus/eng_Latn/devtest.jsonl", rows(ENGLISH["devtest"]))
    with pytest.raises(MissingRows, match="FLORES, dev in en: not in"):
        sentences(str(tmp_path), "en", "dev")


def test_every_language_has_a_code():
    """The codes of FLORES-200's own list (facebookresearch/flores, flores200/README.md), for Aya's languages."""
    assert FLORES.keys() == ENGLISH_NAMES.keys()
    theirs = (
        "arb_Arab ces_Latn deu_Latn ell_Grek eng_Latn spa_Latn pes_Arab fra_Latn heb_Hebr hin_Deva ind_Latn ita_Latn jpn_Jpan "
        "kor_Hang nld_Latn pol_Latn por_Latn ron_Latn rus_Cyrl tur_Latn ukr_Cyrl vie_Latn zho_Hans"
    )
    assert " ".join(sorted(FLORES.values())) == " ".join(sorted(theirs.split(" ")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": " "}, r"zho_Hans\.jsonl, line 2: 'text' is ' '"),
        ({"text": None}, r"line 2: 'text' is None"),
        ({"id": None}, r"line 2: 'id' is None"),
        ({"id": 7}, r"line 2: 'id' 7 is that of line 1 too"),
        ({"id": 99}, r"zho_Hans\.jsonl: has no sentence '8', which .*eng_Latn\.jsonl has \(1 of 3 are missing\)"),
    ],
)
def test_a_row_that_is_not_as_it_should_be_is_named(tmp_path, change, message):
    home = tmp_path / "openlanguagedata/flores_plus/devtest"
    write_jsonl(home / "eng_Latn.jsonl", rows(ENGLISH["devtest"]))
    chinese = rows(CHINESE["devtest"])
    chinese[1] |= change
    write_jsonl(home / "zho_Hans.jsonl", chinese)
    with pytest.raises(UserError, match=message):
        pairs(str(tmp_path), "en", "zh", "devtest")


def test_an_empty_line_of_an_archive_is_named(tmp_path):
    as_the_archive(tmp_path)
    file = tmp_path / "eval/flores200_dataset/devtest/zho_Hans.devtest"
    file.write_text("早上好。\n\n完。\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"zho_Hans\.devtest, line 2: 'sentence' is ''"):
        sentences(str(tmp_path), "zh", "devtest")


def test_without_a_folder_it_is_the_hub_s(monkeypatch):
    asked = []

    def load_dataset(path, name, **more):
        asked.append((path, name, more))
        texts = {"eng_Latn": ENGLISH, "cmn_Hans": CHINESE}[name]
        return datasets.DatasetDict({split: datasets.Dataset.from_list(rows(found)) for split, found in texts.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [row["reference"] for row in pairs(None, "en", "zh", "devtest")] == CHINESE["devtest"]
    assert asked == [("openlanguagedata/flores_plus", code, {}) for code in ("eng_Latn", "cmn_Hans")]


def test_a_closed_gate_is_said(monkeypatch):
    def load_dataset(path, name):
        raise PermissionError(f"Dataset {path!r} is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(MissingRows, match=r"is a gated dataset.*accept its conditions.*hf auth login"):
        pairs(None, "en", "de", "devtest")


@pytest.mark.real_data
def test_real_sentences_in_the_layout_of_the_archive(tmp_path):
    """NTREX's rows, laid out as FLORES-200 is, come back as they are."""
    file = Path(os.environ["AYA_DATA"]) / "eval/ntrex/en-ja.jsonl.gz"
    real = [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
    home = tmp_path / "eval/flores200_dataset/devtest"
    home.mkdir(parents=True)
    for code, field in (("eng_Latn", "en"), ("jpn_Jpan", "tgt")):
        (home / f"{code}.devtest").write_text("".join(f"{row[field]}\n" for row in real), encoding="utf-8")
    found = pairs(str(tmp_path), "en", "ja", "devtest")
    assert [(row["source"], row["reference"]) for row in found] == [(r["en"].strip(), r["tgt"].strip()) for r in real]
