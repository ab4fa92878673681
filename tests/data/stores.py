"""Small token stores for tests: documents of random bytes."""

import dataclasses

import numpy as np

from aya_jax.data import store


@dataclasses.dataclass(frozen=True)
class ByteVocabulary:
    """The 256 bytes, then bos, eos and pad."""

    bos_id: int | None = 256
    eos_id: int = 257
    pad_id: int = 258
    size: int = 259

    @property
    def token_bytes(self) -> np.ndarray:
        return np.array([1] * 256 + [0] * 3, np.int32)

    def info(self, digest: str = "bytes") -> store.VocabularyInfo:
        return store.VocabularyInfo(
            digest=digest, size=self.size, pad_id=self.pad_id, bos_id=self.bos_id, eos_id=self.eos_id, spec="bytes"
        )


VOCABULARY = ByteVocabulary()


def document(body, bos_id=256, eos_id=257, weights=None) -> store.Document:
    """`[bos] body eos`."""
    return store.Document(np.array([*([] if bos_id is None else [bos_id]), *body, eos_id], np.int32), weights)


def random_documents(seed, count, longest, *, weighted=False, bos_id=256) -> list[store.Document]:
    """`count` documents of 0 to `longest` random printable bytes, with random weights where `weighted`."""
    rng = np.random.Generator(np.random.PCG64(seed))
    documents = [document(rng.integers(32, 127, rng.integers(0, longest + 1)), bos_id) for _ in range(count)]
    if not weighted:
        return documents
    return [dataclasses.replace(d, loss_weights=rng.random(len(d.tokens)).astype(np.float32)) for d in documents]


def write_store(
    directory, shards, *, task="text_en", split="train", language="en", domain="text", vocabulary=None, token_bytes=None
):
    """Writes and opens a finished store of these shards' documents."""
    info = VOCABULARY.info() if vocabulary is None else vocabulary
    token_bytes = VOCABULARY.token_bytes if token_bytes is None else token_bytes
    manifest = store.Manifest(
        task=task,
        split=split,
        language=language,
        domain=domain,
        vocabulary=info,
        source=store.SourceInfo(description="random bytes", digest="0"),
        loss_weights=any(document.loss_weights is not None for shard in shards for document in shard),
        shards=tuple(
            store.write_shard(directory, number, documents, token_bytes=token_bytes)
            for number, documents in enumerate(shards)
        ),
    )
    store.write_manifest(directory, manifest, token_bytes=token_bytes)
    return store.TokenStore.open(directory)
