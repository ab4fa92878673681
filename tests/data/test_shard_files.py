"""One shard written, described and refused."""

import hashlib

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.data import shard_files, store
from aya_jax.data.shard_files import Document
from tests.data.stores import VOCABULARY, random_documents


def test_totals_count_documents_tokens_and_bytes_of_text(tmp_path):
    documents = [Document(np.array([256, 65, 66, 257])), Document(np.array([256, 67, 257]))]
    info = store.write_shard(str(tmp_path), 7, documents, token_bytes=VOCABULARY.token_bytes)
    # The digest as documented, by hand.
    content = b"".join(
        len(d.tokens).to_bytes(8, "little") + d.tokens.astype("<i4").tobytes() + (0).to_bytes(8, "little")
        for d in documents
    )
    assert info == store.ShardInfo(documents=2, tokens=7, bytes=3, sha256=hashlib.sha256(content).hexdigest())
    assert store.read_shard_info(str(tmp_path), 7) == info
    assert store.read_shard_info(str(tmp_path), 8) is None


def test_writing_again_gives_the_same_bytes_and_replaces_leftovers(tmp_path):
    documents = random_documents(3, 20, 100)
    (tmp_path / "shard-00000.partial" / "tokens").mkdir(parents=True)
    (tmp_path / "shard-00000.partial" / "tokens" / "junk").write_text("of a killed run")
    digests = []
    for _ in range(2):
        store.write_shard(str(tmp_path), 0, iter(documents), token_bytes=VOCABULARY.token_bytes)
        digests.append({p.name: p.read_bytes() for p in sorted((tmp_path / "shard-00000").rglob("*")) if p.is_file()})
    assert digests[0] == digests[1]
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000"]


@pytest.mark.parametrize(("size", "dtype"), [(255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32")])
def test_tokens_take_the_smallest_type(size, dtype):
    assert shard_files.token_dtype(size) == np.dtype(dtype)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([Document(np.array([], np.int32))], "document 0 has no tokens"),
        ([Document(np.array([1])), Document(np.array([259]))], "document 1 has a token id outside 0 to 258"),
        ([Document(np.array([-1]))], "outside 0 to 258"),
        ([Document(np.array([1])), Document(np.array([1]), np.array([1.0]))], "document 1: either every document"),
        ([Document(np.array([1, 2]), np.array([1.0]))], "must be 2 finite numbers"),
        ([Document(np.array([1]), np.array([np.nan]))], "finite numbers"),
        ([Document(np.array([1]), np.array([-1.0]))], "finite numbers"),
    ],
)
def test_documents_that_cannot_be_stored_are_named(tmp_path, documents, message):
    with pytest.raises(UserError, match=message):
        store.write_shard(str(tmp_path), 0, documents, token_bytes=VOCABULARY.token_bytes)
    assert store.read_shard_info(str(tmp_path), 0) is None
