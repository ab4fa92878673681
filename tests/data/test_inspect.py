"""`aya inspect`: what is in a batch is what is shown."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.data import arrays, inspect, store, vocabulary
from aya_jax.data.config import DataConfig, InspectConfig, MixtureConfig

BYTES = vocabulary.load("bytes")


def byte_store(directory, texts, spec="bytes", digest=BYTES.digest):
    """A store of texts as the vocabulary "bytes" makes it."""
    info = store.VocabularyInfo(
        digest=digest, size=BYTES.size, pad_id=BYTES.pad_id, bos_id=BYTES.bos_id, eos_id=BYTES.eos_id, spec=spec
    )
    documents = [store.Document(np.array([BYTES.bos_id, *ids, BYTES.eos_id])) for ids in BYTES.encode_batch(texts)]
    shards = [store.write_shard(directory, 0, documents, token_bytes=BYTES.token_bytes())]
    manifest = store.Manifest(
        task="text_en", split="train", language="en", domain="text", vocabulary=info,
        source=store.SourceInfo(description="", digest=""), shards=tuple(shards),
    )  # fmt: skip
    store.write_manifest(directory, manifest, token_bytes=BYTES.token_bytes())
    return store.TokenStore.open(directory)


@pytest.fixture
def config(tmp_path):
    for split in ("train", "validation"):
        byte_store(str(tmp_path / "text_en" / split), ["ab\ncd", "e\\f\x1b[31m", "日本"] * 3)
    data = DataConfig(
        store_dir=str(tmp_path),
        mixture=MixtureConfig(rates="text_en"),
        sequence_length=20,
        global_batch=2,
        packing="documents",
    )
    return InspectConfig(data=data, steps=10)


def shown(config, **changes):
    file = io.StringIO()
    inspect.show(config, Console(file=file, soft_wrap=True, width=200, **changes))
    return file.getvalue()


def test_a_file_gets_marks_and_no_colour(config):
    text = shown(config)
    assert "\x1b" not in text
    assert "batch 0 row 0  text_en  (en, text)" in text
    assert "10 steps of 2 x 20 tokens" in text
    for document in (r"<bos>ab\ncd{<eos>}", r"<bos>e\\f\x1b[31m{<eos>}", "<bos>日本{<eos>}"):
        assert document in text
    assert re.search(r"\{<eos>\}\|<bos>", text)
    assert re.search(r"\|\{<pad> x \d+\}", text)


def test_a_terminal_gets_colours_by_segment_and_dim_lines_where_nothing_is_learned(config):
    text = shown(config, force_terminal=True, color_system="truecolor")
    assert "\x1b[93m<bos>" in text  # the first segment
    assert "\x1b[92m<bos>" in text  # the second
    assert re.search(r"\x1b\[2;4;9\dm<eos>", text)


def test_rows_and_tokens_shown_are_limited(config):
    short = InspectConfig(data=config.data, steps=10, rows=1, max_tokens=3)
    text = shown(short)
    assert "row 0" in text
    assert "row 1" not in text
    assert len(text.rstrip().splitlines()[-1]) < 20


def test_special_tokens_without_a_name_show_their_number():
    class WithTool:
        pad_id, bos_id, eos_id, special_ids = 0, None, 2, frozenset({0, 2, 7})

        def decode(self, ids):
            return "".join(chr(64 + i) for i in ids)

    assert inspect.decode([1, 7, 2, 3, 3], WithTool()) == "A<7><eos>CC"


def test_a_bucket_s_tokenizer_is_opened_and_checked(tmp_path):
    directory = "memory://inspect/text_en/train"
    opened = byte_store(directory, ["ab"], spec="../../vocabulary/tokenizer.json", digest="of another")
    arrays.write_bytes("memory://inspect/vocabulary", "tokenizer.json", _tiny_tokenizer().encode())
    with pytest.raises(UserError, match="not the tokenizer that memory://inspect/text_en/train was made with"):
        inspect.open_vocabulary(opened)
    (tmp_path / "tokenizer.json").write_text(_tiny_tokenizer())
    wanted = vocabulary.load(str(tmp_path / "tokenizer.json"))
    again = byte_store(directory, ["ab"], spec="../../vocabulary/tokenizer.json", digest=wanted.digest)
    assert inspect.open_vocabulary(again).decode([3]) == wanted.decode([3])


def _tiny_tokenizer() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = ["<PAD>", "<BOS_TOKEN>", "<EOS_TOKEN>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(names[:3])
    return tokenizer.to_str()


def test_a_store_without_its_tokenizer_says_so(tmp_path):
    opened = byte_store(str(tmp_path / "text_en" / "train"), ["ab"], spec="../../vocabulary/tokenizer.json")
    with pytest.raises(UserError, match=r"vocabulary/tokenizer\.json"):
        inspect.open_vocabulary(opened)
