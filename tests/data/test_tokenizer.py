"""Training tokenizers: layout of the vocabulary, determinism, sampling, and the verb on the sample and on real text."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from aya_jax.config import UserError, resolve
from aya_jax.data import tokenizer, vocabulary
from aya_jax.data.tokenizer_config import SMALLEST_SIZE, TokenizerConfig

ROOT = Path(__file__).parents[2]
CORPUS = [
    "The cat sat on the mat; the other cat sat on the other mat in 2024.",
    "Кошка сидела на коврике, другая кошка сидела на другом коврике.",
    "猫はマットの上に座っていた。別の猫は別のマットの上に座っていた。",
    "for i in range(100):\n    print(i, i * i)\n",
    "बिल्ली चटाई पर बैठी थी और दूसरी बिल्ली दूसरी चटाई पर बैठी थी।",
] * 5


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return tokenizer.train(CORPUS, 400)


@pytest.fixture(scope="module")
def opened(trained: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> vocabulary.Vocabulary:
    path = tmp_path_factory.mktemp("trained") / "tokenizer.json"
    path.write_text(trained.to_str(), encoding="utf-8")
    return vocabulary.load(str(path))


# ---- the trained tokenizer


def test_cohere_places_of_the_special_tokens(trained: Tokenizer) -> None:
    first = ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<EOP_TOKEN>"]
    assert [trained.id_to_token(i) for i in range(8)] == first
    last = ["START_OF_TURN", "END_OF_TURN", "YES", "NO", "GOOD", "BAD", "USER", "CHATBOT", "SYSTEM"]
    assert [trained.id_to_token(i) for i in range(391, 400)] == [f"<|{name}_TOKEN|>" for name in last]
    assert trained.get_vocab_size() == 400
    assert sorted(trained.get_vocab().values()) == list(range(400))


def test_all_bytes_are_in_it_and_it_opens_as_a_vocabulary(opened: vocabulary.Vocabulary) -> None:
    assert (opened.size, opened.pad_id, opened.bos_id, opened.eos_id) == (400, 0, 5, 6)
    assert len(opened.special_ids) == 17
    assert (opened.token_bytes() == 0).sum() == 17
    assert (opened.token_bytes() == 1).sum() == 256


def test_digits_are_split_one_by_one(trained: Tokenizer) -> None:
    assert trained.encode("in 2024", add_special_tokens=False).tokens[-4:] == ["2", "0", "2", "4"]
    assert not any(sum(c.isdigit() for c in token) > 1 for token in trained.get_vocab() if not token.startswith("<"))


def test_merges_learned_what_repeats(opened: vocabulary.Vocabulary) -> None:
    ids = opened.encode_batch(CORPUS[:5])
    assert all(len(encoded) < 0.75 * len(text.encode()) for encoded, text in zip(ids, CORPUS, strict=False))


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cn"))))
def test_any_text_comes_back_as_its_nfc(opened: vocabulary.Vocabulary, text: str) -> None:
    (ids,) = opened.encode_batch([text])
    expected = unicodedata.normalize("NFC", text)
    assert opened.decode(ids) == expected
    assert opened.token_bytes()[ids].sum() == len(expected.encode())


def test_it_adds_bos_for_others_but_not_for_stores(trained: Tokenizer, opened: vocabulary.Vocabulary) -> None:
    ids = opened.encode_batch(["the cat"])[0]
    assert trained.encode("the cat").ids == [5, *ids]


def test_the_same_text_in_any_order_gives_the_same_bytes(trained: Tokenizer) -> None:
    assert tokenizer.train(reversed(CORPUS), 400).to_str() == trained.to_str()
    program = (
        "from tests.data.test_tokenizer import CORPUS; from aya_jax.data import tokenizer;"
        "import sys; sys.stdout.reconfigure(encoding='utf-8'); print(tokenizer.train(CORPUS, 400).to_str(), end='')"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT)
    assert run.stdout.decode() == trained.to_str()


def test_too_little_text_names_the_largest_size() -> None:
    with pytest.raises(UserError, match=r"gives only (\d+) entries, not 2000") as caught:
        tokenizer.train(["abab abab"], 2000)
    most = int(str(caught.value).split("only ")[1].split()[0])
    assert tokenizer.train(["abab abab"], most).get_vocab_size() == most


# ---- how much of each task


SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**9), min_size=1)


@given(SIZES, st.integers(1, 10**9), st.floats(1, 50), st.floats(1, 10))
def test_shares_of_tasks(sizes: dict[str, int], budget: int, temperature: float, max_repeats: float) -> None:
    times = tokenizer.repeats(sizes, train_bytes=budget, temperature=temperature, max_repeats=max_repeats)
    given_bytes = {name: times[name] * sizes[name] for name in sizes}
    assert sum(given_bytes.values()) <= min(budget, sum(sizes.values())) * (1 + 1e-9)
    assert all(0 < factor <= max_repeats for factor in times.values())
    free = [name for name in sizes if times[name] < max_repeats]
    assume(len(free) > 1)
    one, other = free[:2]
    expected = (sizes[one] / sizes[other]) ** (1 / temperature)
    assert given_bytes[one] / given_bytes[other] == pytest.approx(expected, rel=1e-6)


def test_temperature_one_takes_everything_once() -> None:
    times = tokenizer.repeats({"a": 5, "b": 500}, train_bytes=10**6, temperature=1, max_repeats=4)
    assert times == pytest.approx({"a": 1.0, "b": 1.0})


def test_sampling_is_by_seed_and_close_to_the_rate() -> None:
    texts = [str(n) for n in range(4000)]

    def draw(**kwargs: object) -> list[str]:
        return list(tokenizer.sampled(texts, **({"task": "t", "times": 1.25, "seed": 0} | kwargs)))

    drawn = draw()
    assert set(drawn) == set(texts)
    assert 4900 < len(drawn) < 5100
    assert draw() == drawn
    assert draw(seed=1) != drawn
    assert draw(task="u") != drawn
    assert draw(times=3.0) == [text for text in texts for _ in range(3)]
    assert set(draw(times=0.25)) < set(draw(times=0.5))


# ---- the verb


def config_of(tmp_path: Path, **fields: object) -> TokenizerConfig:
    defaults = {"output_dir": str(tmp_path / "out"), "data_dir": "sample", "tasks": ("text_en", "text_ja")}
    return TokenizerConfig(**(defaults | fields))


def run_verb(*bindings: str, file: str = "bpe.gin") -> None:
    tokenizer.run(resolve(TokenizerConfig, files=[str(ROOT / "gin/tokenizer" / file)], bindings=list(bindings)))


SMALL = ("DATA_DIR='sample'", "TokenizerConfig.tasks=('text_de', 'text_ja')")


def test_the_sample_gives_a_tokenizer_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    run_verb(f"RUN_DIR='{output}'", "VOCABULARY_SIZE=600", *SMALL)
    opened = vocabulary.load(str(output))
    assert opened.size == 600
    report = json.loads((output / "fertility.json").read_text())
    assert report["vocabulary"] == {"digest": opened.digest, "size": 600}
    assert list(report["tasks"]) == ["text_de", "text_ja"]
    german = report["tasks"]["text_de"]
    assert german["documents"] >= 1
    assert german["bytes_per_token"] > 1.2
    assert german["decoded_bytes"] == german["bytes"]
    assert report["tasks"]["text_ja"]["tokens_per_word"] is None
    assert "text_ja" in (output / "fertility.md").read_text()
    assert "600 entries" in capsys.readouterr().out

    first = (output / "tokenizer.json").read_bytes()
    run_verb(f"RUN_DIR='{output}'", "VOCABULARY_SIZE=600", *SMALL)
    assert (output / "tokenizer.json").read_bytes() == first

    with pytest.raises(UserError, match="another configuration"):
        run_verb(f"RUN_DIR='{output}'", "VOCABULARY_SIZE=601", *SMALL)
    assert (output / "tokenizer.json").read_bytes() == first


def test_an_existing_vocabulary_is_only_measured(tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_verb(f"RUN_DIR='{output}'", "VOCABULARY='bytes'", *SMALL, file="measure.gin")
    report = json.loads((output / "fertility.json").read_text())
    assert report["all"]["bytes_per_token"] == 1.0
    assert not (output / "tokenizer.json").exists()


def test_a_task_that_gin_describes_and_one_that_does_not_exist(tmp_path: Path) -> None:
    corpus = tmp_path / "mine.jsonl"
    corpus.write_text("".join(json.dumps({"text": text + str(n)}) + "\n" for n, text in enumerate(CORPUS)))
    common = [f"RUN_DIR='{tmp_path / 'out'}'", "DATA_DIR='sample'", "VOCABULARY_SIZE=300"]
    task = ["TaskConfig.name='mine'", "TaskConfig.language='en'", f"TaskConfig.files=('{corpus}',)"]
    extra = "TokenizerConfig.extra_tasks=(@TaskConfig(),)"
    run_verb(*common, *task, extra, "TokenizerConfig.tasks=('mine',)", "TokenizerConfig.measure_split='train'")
    report = json.loads((tmp_path / "out/fertility.json").read_text())
    assert list(report["tasks"]) == ["mine"]
    assert report["split"] == "train"
    assert report["tasks"]["mine"]["documents"] > len(CORPUS) / 2
    with pytest.raises(UserError, match="text_zz"):
        run_verb(*common[1:], f"RUN_DIR='{tmp_path / 'b'}'", "TokenizerConfig.tasks=('text_zz',)")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tasks", ()),
        ("vocabulary_size", SMALLEST_SIZE),
        ("temperature", 0.5),
        ("max_repeats", 0.0),
        ("train_bytes", 0),
        ("measure_bytes", -1),
    ],
)
def test_values_out_of_range_are_reported(tmp_path: Path, field: str, value: object) -> None:
    good = config_of(tmp_path)
    assert list(good.validate()) == []
    assert [problem.field for problem in dataclasses.replace(good, **{field: value}).validate()] == [field]


@pytest.mark.parity
def test_transformers_opens_it_and_gives_the_same_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    trained = tokenizer.train(CORPUS, 400)
    (tmp_path / "tokenizer.json").write_text(trained.to_str(pretty=True), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(tokenizer.tokenizer_config_json())
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours = vocabulary.load(str(tmp_path))
    for text in [*CORPUS[:5], "unseen: Ünïcode 🙂 42"]:
        assert theirs(text)["input_ids"] == [ours.bos_id, *ours.encode_batch([text])[0]]
        assert theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True) == text
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (5, 6, 0)
    assert len(theirs) == 400
    assert theirs.padding_side == "left"


@pytest.mark.real_data
@pytest.mark.slow
def test_every_language_of_a_corpus_is_compressed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_verb(f"RUN_DIR='{output}'", f"DATA_DIR='{os.environ['AYA_DATA']}'")
    report = json.loads((output / "fertility.json").read_text())
    assert len(report["tasks"]) == 27
    assert report["vocabulary"]["size"] == 8192
    assert all(row["bytes_per_token"] > 1.9 for row in report["tasks"].values())
