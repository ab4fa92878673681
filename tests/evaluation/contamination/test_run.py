"""`aya evaluate gin/evaluate/contamination.gin`: rows planted in token stores, found from benchmarks, files and records."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.data import store, vocabulary
from aya_jax.data.store import Document, VocabularyInfo
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.contamination import documents
from aya_jax.evaluation.contamination.config import ContaminationConfig
from aya_jax.evaluation.contamination.documents import Corpus, Place, look_through, open_corpus
from aya_jax.evaluation.contamination.overlap import EvaluationRow, Search, overlap
from aya_jax.evaluation.contamination.results import contaminated
from aya_jax.evaluation.contamination.rows import gather, read_evaluations
from aya_jax.evaluation.results import Sample, read_summary, write
from tests.data.stores import write_store

ROOT = Path(__file__).parents[3]
BYTES = vocabulary.load("bytes")


def made_up(rng, words=40):
    return " ".join("".join(rng.choices(["ba", "ko", "ri", "né", "ло", "सा"], k=3)) for _ in range(words))


@contextlib.contextmanager
def track(label, total):
    yield lambda count: None


def make_store(folder, task, texts):
    """Two shards of the texts, as bytes."""
    made = [
        Document(np.array([BYTES.bos_id, *BYTES.encode_batch([text])[0], BYTES.eos_id], np.int32)) for text in texts
    ]
    half = len(made) // 2
    return write_store(
        store.store_path(str(folder), task, "train"), [made[:half], made[half:]], task=task,
        vocabulary=VocabularyInfo.of(BYTES, "bytes"), token_bytes=BYTES.token_bytes(),
    )  # fmt: skip


@pytest.fixture
def texts():
    rng = random.Random(0)
    return {task: [made_up(rng) for _ in range(9)] for task in ("text_de", "text_tr")}


@pytest.fixture
def stores(tmp_path, texts):
    """With a row of XCOPA in document 5 of text_tr, and a row of a file in document 8 of text_de."""
    texts["text_tr"][5] += " " + json.dumps(question(1), ensure_ascii=False)
    texts["text_de"][8] = f"{texts['text_de'][8]} «{leaked().upper()}»"
    for task, of_task in texts.items():
        make_store(tmp_path / "stores", task, of_task)
    return tmp_path / "stores"


def question(number):
    rng = random.Random(100 + number)
    names = ("premise", "choice1", "choice2")
    return {name: made_up(rng, 14) for name in names} | {"question": "cause", "label": number % 2, "idx": number}


def leaked():
    return made_up(random.Random(7), 20)


def write_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_planted_rows_are_found_and_scores_are_told_without_them(tmp_path, stores, capsys):
    """3 rows of XCOPA, of which number 1 leaked: right answers 1, 1, 0 have the mean 2/3, and without it 1/2."""
    for split in ("test", "val"):
        write_lines(tmp_path / f"data/eval/xcopa/{split}.tr.jsonl", [question(number) for number in range(3)])
    write_lines(
        tmp_path / "own.jsonl",
        [
            {"text": made_up(random.Random(1)), "language": "de"},
            {"text": leaked(), "language": "de"},
            {"text": "short"},
        ],
    )
    asked = tmp_path / "run" / "evaluations" / "benchmarks.json"
    asked.parent.mkdir(parents=True)
    write(asked, {"kind": "benchmarks"}, [sample(number, float(number < 2)) for number in range(3)])
    arguments = [
        "evaluate", str(ROOT / "gin/evaluate/contamination.gin"), f"--gin.STORE_DIR={stores}",
        f"--gin.RUN_DIR={tmp_path}", f"--gin.DATA_DIR={tmp_path / 'data'}", "--gin.TASKS=('xcopa_tr',)",
        f"--gin.ContaminationConfig.files=('{tmp_path / 'own.jsonl'}',)",
        f"--gin.ContaminationConfig.records=('{asked}',)",
    ]  # fmt: skip
    assert main(arguments) == 0
    out = capsys.readouterr().out
    file = tmp_path / "evaluations" / "contamination.json"
    summary = read_summary(file)
    xcopa, own = summary["benchmarks"]["xcopa"]["tr"], summary["benchmarks"]["own"]
    assert (xcopa["rows"], xcopa["contaminated"], xcopa["too_short"]) == (3, 1, 0)
    assert (own["de"]["rows"], own["de"]["contaminated"], own[""]["too_short"]) == (2, 1, 1)
    assert (summary["documents"], sorted(summary["stores"])) == (18, ["text_de", "text_tr"])
    records = {record["id"]: record for record in map(json.loads, samples_of(file)) if record["contaminated"]}
    of_file = f"{tmp_path / 'own.jsonl'}/2"
    assert records["xcopa_tr/1"]["document"] == {"store": "text_tr", "number": 5}
    assert records[of_file]["document"] == {"store": "text_de", "number": 8}
    assert (records[of_file]["share"], records[of_file]["passage"]) == (1.0, leaked().upper())
    assert contaminated(file) == {"xcopa_tr/1", of_file} == set(records)
    scores = summary["scores"][str(asked)]["xcopa"]["acc"]
    assert scores["all"]["macro"]["mean"] == pytest.approx(2 / 3)
    assert scores["clean"]["macro"]["mean"] == pytest.approx(1 / 2)
    assert "100% in text_de, document 8" in out
    assert "of 3" in out
    assert main(arguments) == 0
    assert "is there for these rows and stores" in capsys.readouterr().out


def samples_of(file):
    return file.with_suffix(".samples.jsonl").read_text(encoding="utf-8").splitlines()


def sample(number, right):
    asked = question(number)
    return Sample(
        f"xcopa_tr/{number}", "xcopa_tr", "xcopa", f"xcopa/{number}", "tr", {"acc": right}, 0, 0, asked["premise"],
        (asked["choice1"], asked["choice2"]),
    )  # fmt: skip


def test_a_killed_search_goes_on_where_it_was(tmp_path, stores, texts, monkeypatch):
    monkeypatch.setattr(documents, "_DOCUMENTS", 2)
    everything = texts["text_de"] + texts["text_tr"]
    rows = [EvaluationRow(str(k), (everything[k],), "xx") for k in (0, 7, 12)] + [
        EvaluationRow("new", (made_up(random.Random(3)),))
    ]
    corpus = open_corpus(ContaminationConfig(store_dir=str(stores), files=("x",)))
    read, block = [], Corpus.block

    def failing(self, opened, first):
        if len(read) == 6:
            raise KeyboardInterrupt
        read.append((opened.manifest.task, first))
        return block(self, opened, first)

    monkeypatch.setattr(Corpus, "block", failing)
    with pytest.raises(KeyboardInterrupt), Answers(tmp_path / "known.jsonl") as known:
        look_through(corpus, Search(rows, 13), known, track)
    assert read == [("text_de", first) for first in (0, 2, 4, 6, 8)] + [("text_tr", 0)]
    read.clear()
    search = Search(rows, 13)
    with Answers(tmp_path / "known.jsonl") as known:
        look_through(corpus, search, known, track)
    assert read == [("text_tr", first) for first in (2, 4, 6, 8)]
    assert search.overlaps() == overlap(rows, everything)
    assert [found.document for found in search.overlaps()] == [0, 7, 12, None]


@pytest.mark.parametrize(("most", "tokens"), [(1, 1 << 20), (4, 1), (4, 500), (100, 900)])
def test_documents_are_read_once_and_in_order_whatever_the_blocks(stores, texts, monkeypatch, most, tokens):
    monkeypatch.setattr(documents, "_DOCUMENTS", most)
    monkeypatch.setattr(documents, "_TOKENS", tokens)
    corpus = open_corpus(ContaminationConfig(store_dir=str(stores), stores=("text_tr",), files=("x",)))
    [opened], first, found, total = corpus.stores.values(), 0, [], 0
    while first < opened.num_documents:
        block, size = corpus.block(opened, first)
        assert len(block) <= most
        found, total, first = found + block, total + size, first + len(block)
    assert (found, total) == (texts["text_tr"], opened.num_tokens)


def test_numbers_go_through_all_stores(stores, texts):
    corpus = open_corpus(ContaminationConfig(store_dir=str(stores), files=("x",)))
    everything = [("text_de", k) for k in range(9)] + [("text_tr", k) for k in range(9)]
    assert [corpus.place(number) for number in range(corpus.documents)] == [Place(*each) for each in everything]
    assert [corpus.text(corpus.place(number)) for number in (3, 9)] == [texts["text_de"][3], texts["text_tr"][0]]


def test_what_is_missing_is_named(tmp_path, stores):
    with pytest.raises(UserError, match=r"nowhere: no token store of the split 'train' is there"):
        open_corpus(ContaminationConfig(store_dir=str(tmp_path / "nowhere"), files=("x",)))
    with pytest.raises(UserError, match=r"no task matches 'text_d'; did you mean text_de"):
        open_corpus(ContaminationConfig(store_dir=str(stores), stores=("text_d",), files=("x",)))
    with pytest.raises(UserError, match=r"no\.json: no evaluation of benchmarks"):
        read_evaluations(ContaminationConfig(store_dir="s", records=("no.json",)))
    write_lines(tmp_path / "own.jsonl", [{"text": "a"}, {"txt": "b"}])
    with pytest.raises(UserError, match=r"own\.jsonl:2: field 'text' is missing"):
        gather(ContaminationConfig(store_dir="s", files=(str(tmp_path / "own.jsonl"),)), {}, print)
    with pytest.raises(UserError, match="no contamination is there"):
        contaminated(tmp_path / "evaluations" / "contamination.json")


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("ContaminationConfig.n=0", "at least 1"),
        ("ContaminationConfig.threshold=0.0", "above 0 and at most 1"),
        ("ContaminationConfig.files=()", "rows to look for: bind TASKS"),
        ("EvaluateConfig.run_dir=None", "add --gin.RUN_DIR"),
    ],
)
def test_mistakes_are_named(binding, expected):
    bindings = [
        "EvaluateConfig.run_dir='r'", "EvaluateConfig.measure=@ContaminationConfig()",
        "ContaminationConfig.store_dir='s'", "ContaminationConfig.files=('f',)",
    ]  # fmt: skip
    with pytest.raises(UserError, match=expected):
        resolve(EvaluateConfig, bindings=[*bindings, binding])


@pytest.mark.parametrize("harness", ["0.4.13", None])
def test_what_a_model_said_is_not_looked_for(tmp_path, harness):
    """Of lm-evaluation-harness's tasks `doc` is the benchmark's row; other evaluations keep answers there."""
    file = tmp_path / "evaluations" / "benchmarks.json"
    file.parent.mkdir()
    one = sample(0, 1.0)
    doc = {"question": "the row's", "more": ["texts", {"of": "it"}, 3]} if harness else {"answer": "the model's"}
    write(file, {"kind": "benchmarks", "harness": harness}, [dataclasses.replace(one, target="right", doc=doc)])
    config = ContaminationConfig(store_dir="s", records=(str(file),))
    [row] = gather(config, read_evaluations(config), print)
    asked = (one.prompt, *one.choices, "right")
    assert row.pieces == (("the row's", "texts", "it") if harness else asked)
