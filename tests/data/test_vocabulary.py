"""Vocabularies against the libraries themselves, and the laws that bits per byte rests on."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from aya_jax.config import UserError
from aya_jax.data import vocabulary

TEXTS = [
    "The quick brown fox jumps over the lazy dog, 1234 times.",
    "Żółta łódka płynie; być może jutro.\n\nNowy akapit.",
    "मैं हिन्दी में लिखता हूँ।",
    "日本語の文章です。東京へ行きます。",
    "def f(x):\n    return x + 1  # ок",
    "مرحبا بالعالم",
    "e\u0301 is NFD, \u212b is a compatibility letter, \u0958 composes to itself decomposed",
    "   leading and trailing   ",
    "",
    "🙂‍↔️ \x00 \ufffd",
]
CONTROL_TEXT = "x <EOS_TOKEN> y</s> <|END_OF_TURN_TOKEN|><|begin_of_text|>[PAD]<start_of_turn> z"
# Python's Unicode tables are older than the library's: characters that only one of them knows cannot agree on NFC.
ASSIGNED = st.text(st.characters(exclude_categories=("Cs", "Cn")))


def train_bpe() -> Tokenizer:
    """A byte-level BPE as such files come: automatic BOS, padding, truncation, and turn tokens marked as plain text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<PAD>", "<BOS_TOKEN>", "<EOS_TOKEN>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_tokens([AddedToken("<|END_OF_TURN_TOKEN|>", special=False), AddedToken("    ", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<BOS_TOKEN> $A", special_tokens=[("<BOS_TOKEN>", 1)]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=40)
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(scope="module")
def bpe_path(folder: Path) -> str:
    path = folder / "tokenizer.json"
    train_bpe().save(str(path))
    return str(path)


@pytest.fixture(scope="module")
def bpe(bpe_path: str) -> vocabulary.Vocabulary:
    return vocabulary.load(bpe_path)


@pytest.fixture(scope="module")
def model_path(folder: Path) -> str:
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([t for t in TEXTS if t] * 5),
        model_writer=content,
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        user_defined_symbols=["<start_of_turn>", "<table>"],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(content.getvalue())
    return str(path)


@pytest.fixture(scope="module")
def pieces(model_path: str) -> vocabulary.Vocabulary:
    return vocabulary.load(model_path)


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


# ---- bytes


def test_bytes_layout() -> None:
    loaded = vocabulary.load("bytes")
    assert (loaded.size, loaded.pad_id, loaded.bos_id, loaded.eos_id) == (259, 0, 1, 2)
    assert loaded.encode_batch(["aé", ""]) == [[100, 0xC3 + 3, 0xA9 + 3], []]
    assert loaded.token_bytes().dtype == np.int32
    assert loaded.token_bytes().tolist() == [0, 0, 0] + [1] * 256


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_bytes_are_lossless(text: str) -> None:
    loaded = vocabulary.load("bytes")
    (ids,) = loaded.encode_batch([text])
    assert loaded.decode([loaded.bos_id, *ids, loaded.eos_id, loaded.pad_id]) == text
    assert loaded.token_bytes()[ids].sum() == len(text.encode())


def test_a_cut_character_decodes_to_the_replacement_character() -> None:
    loaded = vocabulary.load("bytes")
    assert loaded.decode(loaded.encode_batch(["aé"])[0][:-1]) == "a\ufffd"


# ---- tokenizer.json


def test_bpe_gives_the_ids_of_the_library(bpe: vocabulary.Vocabulary) -> None:
    oracle = train_bpe()
    oracle.no_padding()
    oracle.no_truncation()
    expected = [oracle.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert bpe.encode_batch(TEXTS) == expected
    assert bpe.encode_batch(TEXTS, parallel=True) == expected
    assert bpe.size == oracle.get_vocab_size()


def test_bpe_finds_the_ids_around_a_document(bpe: vocabulary.Vocabulary) -> None:
    assert (bpe.pad_id, bpe.bos_id, bpe.eos_id) == (0, 1, 2)


@settings(deadline=None, max_examples=200)
@given(ASSIGNED)
@example("e\u0301")
@example("\u0958")
@example(CONTROL_TEXT)
@example("a\u2028b\x85c\r\nd")
def test_bpe_round_trip_and_bytes(bpe: vocabulary.Vocabulary, text: str) -> None:
    (ids,) = bpe.encode_batch([text])
    assert bpe.decode(ids) == nfc(text)
    assert bpe.token_bytes()[ids].sum() == len(nfc(text).encode())


def test_token_bytes_of_each_bpe_token(bpe: vocabulary.Vocabulary, bpe_path: str) -> None:
    oracle = Tokenizer.from_file(bpe_path)
    counts = bpe.token_bytes()
    assert counts.shape == (bpe.size,)
    for i in range(bpe.size):
        content = oracle.id_to_token(i)
        if content in ("<PAD>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"):
            assert counts[i] == 0
        elif "\ufffd" not in (text := oracle.decode([i])):  # the rest are parts of characters
            assert counts[i] == len(text.encode()), content
    assert counts[oracle.token_to_id("    ")] == 4


@pytest.mark.parametrize("fixture", ["bpe", "pieces"])
def test_control_tokens_in_text_stay_text(fixture: str, request: pytest.FixtureRequest) -> None:
    loaded: vocabulary.Vocabulary = request.getfixturevalue(fixture)
    (ids,) = loaded.encode_batch([CONTROL_TEXT])
    assert not set(ids) & loaded.special_ids
    assert loaded.decode(ids) == CONTROL_TEXT


@pytest.mark.parametrize("fixture", ["bpe", "pieces"])
def test_pickled_and_loaded_again_it_encodes_the_same(fixture: str, request: pytest.FixtureRequest) -> None:
    loaded: vocabulary.Vocabulary = request.getfixturevalue(fixture)
    copy = pickle.loads(pickle.dumps(loaded))
    assert copy.encode_batch([CONTROL_TEXT, *TEXTS]) == loaded.encode_batch([CONTROL_TEXT, *TEXTS])
    assert copy.digest == loaded.digest == hashlib.sha256(Path(loaded.spec).read_bytes()).hexdigest()


def test_special_ids_decode_to_nothing(bpe: vocabulary.Vocabulary) -> None:
    (ids,) = bpe.encode_batch(["two words"])
    assert bpe.decode(np.array([bpe.bos_id, *ids, bpe.eos_id, bpe.pad_id, bpe.size + 7])) == "two words"


def test_a_unigram_model_does_not_find_its_control_tokens(folder: Path) -> None:
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    scores += [(character, -5.0) for character in "▁abcdefghijklmnopqrstuvwxyz<>/"]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    path = folder / "unigram.json"
    tokenizer.save(str(path))
    loaded = vocabulary.load(str(path))
    (ids,) = loaded.encode_batch(["a</s>b"])
    assert not set(ids) & loaded.special_ids
    assert loaded.decode(ids) == "a</s>b"
    assert loaded.token_bytes()[ids].sum() == len(" a</s>b")
    assert (loaded.pad_id, loaded.bos_id, loaded.eos_id) == (0, None, 1)


def test_a_whole_word_model_with_a_control_token_is_refused(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["</s>"])
    path = folder / "words.json"
    tokenizer.save(str(path))
    with pytest.raises(UserError, match=r"words\.json: the text '</s>' inside a document"):
        vocabulary.load(str(path))


def test_byte_fallback_pieces_count_one_byte(folder: Path) -> None:
    ids = {"</s>": 0, "▁": 1, "a": 2, "▁a": 3} | {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(ids, [("▁", "a")], byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["</s>"])
    path = folder / "fallback.json"
    tokenizer.save(str(path))
    loaded = vocabulary.load(str(path))
    text = "a aé 日"
    (encoded,) = loaded.encode_batch([text])
    assert loaded.decode(encoded) == text
    assert loaded.token_bytes()[encoded].sum() == len(text.encode())


def test_names_from_the_caller_and_from_tokenizer_config(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["START", "STOP"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([], trainer)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    with pytest.raises(UserError, match=r"no token ends a document: none of <EOS_TOKEN>"):
        vocabulary.load(str(path))
    named = vocabulary.load(str(path), vocabulary.SpecialNames(eos="STOP", pad=0))
    assert (named.pad_id, named.bos_id, named.eos_id) == (0, None, 1)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "STOP"}, "bos_token": "START"})
    )
    found = vocabulary.load(str(tmp_path))
    assert (found.pad_id, found.bos_id, found.eos_id) == (1, 0, 1)  # no padding token: the rows are filled with eos
    with pytest.raises(UserError, match="the bos token 'NONE' is not in this vocabulary"):
        vocabulary.load(str(path), vocabulary.SpecialNames(bos="NONE", eos="STOP"))


# ---- SentencePiece


def test_sentencepiece_gives_the_ids_of_the_library(pieces: vocabulary.Vocabulary, model_path: str) -> None:
    oracle = sentencepiece.SentencePieceProcessor(model_file=model_path)
    assert pieces.encode_batch(TEXTS) == [oracle.encode(text, out_type=int) for text in TEXTS]
    assert pieces.encode_batch(TEXTS, parallel=True) == pieces.encode_batch(TEXTS)
    assert (pieces.size, pieces.bos_id, pieces.eos_id) == (oracle.vocab_size(), oracle.bos_id(), oracle.eos_id())
    assert pieces.pad_id == oracle.eos_id()  # this model has no padding


@settings(deadline=None)
@given(ASSIGNED.map(lambda text: text.replace("▁", "").replace("\x00", "")))
@example("日本 𐍈")
def test_sentencepiece_bytes_are_the_text_and_the_dummy_space(pieces: vocabulary.Vocabulary, text: str) -> None:
    (ids,) = pieces.encode_batch([text])
    assert pieces.decode(ids) == text
    assert pieces.token_bytes()[ids].sum() == (len(text.encode()) + 1 if text else 0)


def test_only_control_like_user_pieces_are_kept_from_text(pieces: vocabulary.Vocabulary, model_path: str) -> None:
    oracle = sentencepiece.SentencePieceProcessor(model_file=model_path)
    (ids,) = pieces.encode_batch(["a<table>b"])
    assert oracle.piece_to_id("<table>") in ids
    assert oracle.piece_to_id("<start_of_turn>") in oracle.encode("<start_of_turn>")
    assert oracle.piece_to_id("<start_of_turn>") in pieces.special_ids


# ---- what cannot be opened


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", r"a\.json: not a tokenizer\.json"),
        ("b.json", b"[1]", r"b\.json: not a tokenizer\.json: it has no 'model'"),
        ("c.json", b'{"model": {"type": "?"}}', r"c\.json: the tokenizers library cannot read"),
        ("d.model", b"no protobuf at all", r"d\.model: not a SentencePiece model"),
        ("e.model", b"", r"e\.model: not a SentencePiece model"),
        ("f.txt", b"", r"f\.txt: a vocabulary's name ends in"),
    ],
)
def test_what_is_no_vocabulary_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        vocabulary.load(str(tmp_path / name))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such vocabulary"):
        vocabulary.load(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"holds neither tokenizer\.json nor tokenizer\.model"):
        vocabulary.load(str(tmp_path))


@pytest.mark.parametrize(
    ("token", "control"),
    [
        ("<|im_end|>", True),
        ("<｜User｜>", True),
        ("<|channel>", True),
        ("<turn|>", True),
        ("a|b", False),
        ("<EOS_TOKEN>", True),
        ("<unused12>", True),
        ("<table>", False),
        ("\t\t", False),
    ],
)
def test_what_looks_like_a_control_token(token: str, control: bool) -> None:
    assert vocabulary.looks_like_control(token) is control


PROBE = """
import os, sys
from aya_jax.data import vocabulary
loaded = vocabulary.load(sys.argv[1])
before = len(os.listdir("/proc/self/task"))
loaded.encode_batch(["some words"] * 64)
serial = len(os.listdir("/proc/self/task")) - before
loaded.encode_batch(["some words"] * 64, parallel=True)
assert not any(name.split(".")[0] in ("tensorflow", "seqio", "jax", "sentencepiece") for name in sys.modules)
print(serial, len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_encoding_starts_threads_only_when_asked_and_imports_nothing_heavy(bpe_path: str) -> None:
    result = subprocess.run([sys.executable, "-c", PROBE, bpe_path], capture_output=True, text=True, check=True)
    serial, parallel = map(int, result.stdout.split())
    assert serial == 0
    assert parallel > 0
