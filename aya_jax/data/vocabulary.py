"""Vocabularies: text to token ids and back, with the bytes of text that each id stands for.

`load(spec)` opens the bytes themselves, a `tokenizer.json` of the tokenizers library, or a SentencePiece `.model`.
All three behave alike where it matters for training:

* Text is data. `<EOS_TOKEN>` written inside a document becomes the ordinary pieces `<`, `EOS`, ... and never the id
  that ends a document, nor does a tokenizer.json's post-processor put its own BOS in front: whoever stores documents
  adds `bos_id` and `eos_id`.
* Ids that are not text (`special_ids`) stand for 0 bytes and decode to nothing.
* `token_bytes()` sums, over a document's ids, to the UTF-8 bytes of what the ids decode to, so that bits per byte are
  comparable between vocabularies. For a byte-level BPE that normalises with NFC those are the bytes of NFC(text), not
  of the text as it was written; for the bytes vocabulary, which normalises nothing, they are the document's own.
  SentencePiece counts "▁" as the one space that it stands for and `<0xNN>` as one byte; a model that puts a dummy space
  before every text counts that space too, and what its normaliser drops is not counted.

Nothing here imports TensorFlow; sentencepiece is imported when a `.model` is opened.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from aya_jax.config import UserError
from aya_jax.data.sentencepiece_model import make_control
from aya_jax.data.token_lengths import byte_level_length, piece_length, spaced_length

# In the order in which they are looked for: Cohere, Llama 3, GPT-2 and NeoX, Gemma, SentencePiece and Llama 2.
PAD_NAMES = ("<PAD>", "<|finetune_right_pad_id|>", "<|padding|>", "<pad>", "[PAD]")
BOS_NAMES = ("<BOS_TOKEN>", "<|begin_of_text|>", "<bos>", "<s>")
EOS_NAMES = ("<EOS_TOKEN>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "</s>")

_BYTE_OFFSET = 3
_BYTES_LAYOUT = b"aya_jax bytes vocabulary 1: pad 0, bos 1, eos 2, byte b is id b + 3"

# Files disagree about which added tokens are special (turn tokens are often marked as plain ones, Gemma's are
# user-defined symbols), so the shape of the name decides as well. Runs of spaces and HTML tags stay text.
# "｜" is DeepSeek's full-width bar.
_CONTROL_NAME = re.compile(
    r"<[|｜][^|｜<>]+[|｜]?>|<[^|｜<>]+[|｜]>|<[A-Z][A-Z0-9_]*>|\[[A-Z][A-Z0-9_]*\]|</?s>|<(pad|bos|eos|unk|mask|cls|sep)>|<(start|end)_of_\w+>"
    r"|<(unused|extra_id_?|reserved_?)\d+>|<fim_\w+>"
)
_NEVER_CHOSEN = -1e9  # a Unigram score below that of any segmentation into other pieces


@dataclasses.dataclass(frozen=True)
class SpecialNames:
    """Names of the tokens around a document, for files whose own are not among the known ones.

    Attributes:
      pad, bos, eos: the token's text, or its id; None looks for the known names.
    """

    pad: str | int | None = None
    bos: str | int | None = None
    eos: str | int | None = None


@dataclasses.dataclass(frozen=True)
class Vocabulary(abc.ABC):
    """What every vocabulary offers.

    Attributes:
      spec: what `load` was given.
      digest: sha256 (hex) of the file's content; it does not change when the file moves.
      size: one more than the largest id.
      pad_id: fills a row behind its documents; `eos_id` where the file names no padding (batches mask by segment).
      bos_id: starts a stored document, or None.
      eos_id: ends a stored document.
      special_ids: the ids that stand for no text: control tokens, which text is never encoded to, and the unknown one.
    """

    spec: str
    digest: str
    size: int
    pad_id: int
    bos_id: int | None
    eos_id: int
    special_ids: frozenset[int] = dataclasses.field(repr=False)

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str], *, parallel: bool = False) -> list[list[int]]:
        """Ids of each text, without bos or eos.

        Args:
          texts: any Unicode text without lone surrogates (`sources` refuses those, with their line).
          parallel: lets the library use a thread per core. The default keeps to the calling thread: right inside a
            pool of processes, and safe to fork after. For a tokenizer.json it is the process-wide environment
            variable TOKENIZERS_PARALLELISM that says so, which this call sets.
        """

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids. Special ids give nothing; bytes that are no UTF-8 (a cut character) give U+FFFD."""

    @abc.abstractmethod
    def token_bytes(self) -> np.ndarray:
        """int32 [V]: UTF-8 bytes of text that each id stands for, 0 for special ids; see the module's docstring."""


def load(spec: str, names: SpecialNames | None = None) -> Vocabulary:
    """Opens a vocabulary.

    Args:
      spec: "bytes"; a `tokenizer.json`; a SentencePiece `.model`; or a directory that holds `tokenizer.json` or
        `tokenizer.model`.
      names: which tokens pad, start and end a document. What it leaves open is looked for under the known names
        (`PAD_NAMES`, `BOS_NAMES`, `EOS_NAMES`), then in the `tokenizer_config.json` beside the file.

    Raises:
      UserError: the file is missing or is no vocabulary, has no end-of-document token, or would read special tokens
        inside text.
    """
    names = names or SpecialNames()
    if spec == "bytes":
        if names != SpecialNames():
            raise UserError("the vocabulary 'bytes' has fixed pad, bos and eos ids (0, 1, 2); leave their names out")
        return _ByteVocabulary.build()
    path = _find_file(spec)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the vocabulary: {error.strerror}") from error
    opener = _TokenizersVocabulary.build if path.suffix == ".json" else _SentencePieceVocabulary.build
    return opener(spec, path, content, names)


def _find_file(spec: str) -> Path:
    path = Path(spec)
    if path.is_dir():
        for name in ("tokenizer.json", "tokenizer.model"):
            if (path / name).is_file():
                return path / name
        raise UserError(f"{spec}: this directory holds neither tokenizer.json nor tokenizer.model")
    if not path.exists():
        raise UserError(f"{spec}: no such vocabulary; give 'bytes', a tokenizer.json or a SentencePiece .model")
    if path.suffix not in (".json", ".model"):
        raise UserError(f"{spec}: a vocabulary's name ends in .json (tokenizers) or .model (SentencePiece)")
    return path


def looks_like_control(token: str) -> bool:
    """Whether a token's text has the shape of a control token (`<|...|>`, `<EOS_TOKEN>`, `[PAD]`, `</s>`, ...)."""
    return _CONTROL_NAME.fullmatch(token) is not None


# ---- bytes


class _ByteVocabulary(Vocabulary):
    """UTF-8 bytes: pad 0, bos 1, eos 2, and byte b is id b + 3."""

    @classmethod
    def build(cls) -> _ByteVocabulary:
        digest = hashlib.sha256(_BYTES_LAYOUT).hexdigest()
        size = 256 + _BYTE_OFFSET
        return cls("bytes", digest, size, pad_id=0, bos_id=1, eos_id=2, special_ids=frozenset(range(_BYTE_OFFSET)))

    def encode_batch(self, texts: Sequence[str], *, parallel: bool = False) -> list[list[int]]:
        return [
            (np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32) + _BYTE_OFFSET).tolist() for text in texts
        ]

    def decode(self, ids: Iterable[int]) -> str:
        text_bytes = bytes(i - _BYTE_OFFSET for i in ids if _BYTE_OFFSET <= i < self.size)
        return text_bytes.decode("utf-8", errors="replace")

    def token_bytes(self) -> np.ndarray:
        return (np.arange(self.size) >= _BYTE_OFFSET).astype(np.int32)


# ---- tokenizer.json


@dataclasses.dataclass(frozen=True)
class _TokenizersVocabulary(Vocabulary):
    """A `tokenizer.json`, encoded by the tokenizers library with its special tokens switched off for text."""

    tokenizer: Tokenizer = dataclasses.field(repr=False)
    names: SpecialNames = dataclasses.field(repr=False)
    byte_level: bool = dataclasses.field(repr=False)

    @classmethod
    def build(cls, spec: str, path: Path, content: bytes, names: SpecialNames) -> _TokenizersVocabulary:
        description = _parse_tokenizer_json(path, content)
        special_ids = _separate_control_tokens(description)
        try:
            tokenizer = Tokenizer.from_str(json.dumps(description, ensure_ascii=False))
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"{path}: the tokenizers library cannot read this file: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # which neither the file nor a pickle keeps
        ids = tokenizer.get_vocab(with_added_tokens=True)
        pad, bos, eos = _document_ids(path, ids, names, _config_names(path))
        special_ids |= {i for i in (pad, bos, eos) if i is not None}
        unknown = _unknown_id(description, ids)
        _refuse_leaks(path, tokenizer, special_ids - {unknown})
        return cls(
            spec=spec,
            digest=hashlib.sha256(content).hexdigest(),
            size=max(ids.values()) + 1,
            pad_id=pad,
            bos_id=bos,
            eos_id=eos,
            special_ids=frozenset(special_ids | ({unknown} - {None})),
            tokenizer=tokenizer,
            names=names,
            byte_level="ByteLevel" in _types_in(description.get("decoder")),
        )

    def encode_batch(self, texts: Sequence[str], *, parallel: bool = False) -> list[list[int]]:
        set_parallelism(parallel)
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        kept = [int(i) for i in ids if i not in self.special_ids and 0 <= i < self.size]
        return self.tokenizer.decode(kept, skip_special_tokens=False)

    def token_bytes(self) -> np.ndarray:
        counts = np.zeros(self.size, np.int32)
        length = byte_level_length if self.byte_level else piece_length(json.loads(self.tokenizer.to_str()))
        for token, i in self.tokenizer.get_vocab(with_added_tokens=True).items():
            counts[i] = 0 if i in self.special_ids else length(token)
        return counts

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.spec, self.names)  # a pickled Tokenizer reads special tokens inside text again


def _parse_tokenizer_json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        description = json.loads(content)
    except ValueError as error:
        raise UserError(f"{path}: not a tokenizer.json: {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("model"), dict):
        raise UserError(f"{path}: not a tokenizer.json: it has no 'model'; give the file that `tokenizers` saves")
    return description


def _separate_control_tokens(description: dict[str, Any]) -> set[int]:
    """Marks, in place, what is no text as special, and keeps a Unigram model from finding it; returns their ids."""
    control = [t for t in description.get("added_tokens", ()) if t["special"] or looks_like_control(t["content"])]
    for token in control:
        token["special"] = True
    model = description["model"]
    if model.get("type") == "Unigram":
        contents = {token["content"] for token in control}
        model["vocab"] = [[p, _NEVER_CHOSEN if p in contents else score] for p, score in model["vocab"]]
    return {token["id"] for token in control}


def _unknown_id(description: dict[str, Any], ids: Mapping[str, int]) -> int | None:
    model = description["model"]
    return model["unk_id"] if "unk_id" in model else ids.get(model.get("unk_token") or "")


def _refuse_leaks(path: Path, tokenizer: Tokenizer, special_ids: set[int]) -> None:
    """Encodes every special token's text and refuses a tokenizer that gives a special id for one."""
    tokens = [tokenizer.id_to_token(i) for i in sorted(special_ids)]
    set_parallelism(False)
    for token, encoding in zip(tokens, tokenizer.encode_batch_fast(tokens, add_special_tokens=False), strict=True):
        if tokenizer.token_to_id(token) in encoding.ids:
            raise UserError(
                f"{path}: the text {token!r} inside a document would become the special token of that name; "
                "use a tokenizer whose model has no such whole word"
            )


def set_parallelism(parallel: bool) -> None:
    """Lets the tokenizers library use a thread per core, in this process and in those it starts from now on, or not."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if parallel else "false"


def _types_in(part: Any) -> set[str]:
    """The `type`s of a tokenizer.json's component and of those it is a sequence of."""
    if not isinstance(part, dict):
        return set()
    inner = part.get("decoders", []) + part.get("pretokenizers", [])
    return {part.get("type", "")}.union(*(_types_in(p) for p in inner))


# ---- which ids pad, start and end a document


def _config_names(path: Path) -> Mapping[str, str]:
    """`pad_token`, `bos_token` and `eos_token` of the tokenizer_config.json beside the file, where it has them."""
    try:
        config = json.loads((path.parent / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    named = {key: config.get(key) for key in ("pad_token", "bos_token", "eos_token")}
    texts = {key: token["content"] if isinstance(token, dict) else token for key, token in named.items()}
    return {key: text for key, text in texts.items() if text}


def _document_ids(
    path: Path, ids: Mapping[str, int], names: SpecialNames, config: Mapping[str, str]
) -> tuple[int, int | None, int]:
    """(pad, bos, eos): named by the caller, else under a known name, else by tokenizer_config.json."""
    pad = _find_id(path, ids, "pad", names.pad, (*PAD_NAMES, config.get("pad_token")))
    bos = _find_id(path, ids, "bos", names.bos, (*BOS_NAMES, config.get("bos_token")))
    eos = _find_id(path, ids, "eos", names.eos, (*EOS_NAMES, config.get("eos_token")))
    if eos is None:
        known = ", ".join(EOS_NAMES)
        raise UserError(
            f"{path}: no token ends a document: none of {known} is in this vocabulary, and no tokenizer_config.json "
            "beside it names an eos_token; name one there"
        )
    return (eos if pad is None else pad), bos, eos


def _find_id(
    path: Path, ids: Mapping[str, int], role: str, name: str | int | None, known: Sequence[str | None]
) -> int | None:
    if isinstance(name, int):
        if name not in ids.values():
            raise UserError(f"{path}: the {role} id {name} is not in this vocabulary")
        return name
    if name is not None:
        if name not in ids:
            raise UserError(f"{path}: the {role} token {name!r} is not in this vocabulary")
        return ids[name]
    return next((ids[token] for token in known if token is not None and token in ids), None)


# ---- SentencePiece


@dataclasses.dataclass(frozen=True)
class _SentencePieceVocabulary(Vocabulary):
    """A SentencePiece `.model`; user-defined pieces that look like control tokens are never found in text."""

    processor: Any = dataclasses.field(repr=False)
    names: SpecialNames = dataclasses.field(repr=False)

    @classmethod
    def build(cls, spec: str, path: Path, content: bytes, names: SpecialNames) -> _SentencePieceVocabulary:
        try:
            import sentencepiece
        except ImportError as error:
            raise UserError(f"{path}: reading a SentencePiece model needs `pip install sentencepiece`") from error
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=make_control(content, looks_like_control))
            size = processor.vocab_size()
        except (RuntimeError, ValueError, IndexError) as error:
            raise UserError(f"{path}: not a SentencePiece model: {error}") from error
        ids = {processor.id_to_piece(i): i for i in range(size)}
        own = {"pad": processor.pad_id(), "bos": processor.bos_id(), "eos": processor.eos_id()}
        declared = {role: i for role, i in own.items() if i >= 0}
        named = {role: declared.get(role) if getattr(names, role) is None else getattr(names, role) for role in own}
        pad, bos, eos = _document_ids(path, ids, SpecialNames(**named), _config_names(path))
        hidden = {i for i in range(size) if _is_no_text(processor, i)}
        return cls(
            spec=spec,
            digest=hashlib.sha256(content).hexdigest(),
            size=size,
            pad_id=pad,
            bos_id=bos,
            eos_id=eos,
            special_ids=frozenset(hidden | {i for i in (pad, bos, eos) if i is not None}),
            processor=processor,
            names=names,
        )

    def encode_batch(self, texts: Sequence[str], *, parallel: bool = False) -> list[list[int]]:
        return self.processor.encode(list(texts), out_type=int, num_threads=-1 if parallel else 1)

    def decode(self, ids: Iterable[int]) -> str:
        return self.processor.decode([int(i) for i in ids if i not in self.special_ids and 0 <= i < self.size])

    def token_bytes(self) -> np.ndarray:
        return np.array([self._length(i) for i in range(self.size)], np.int32)

    def _length(self, i: int) -> int:
        if i in self.special_ids:
            return 0
        return 1 if self.processor.is_byte(i) else spaced_length(self.processor.id_to_piece(i))

    def __reduce__(self) -> tuple[Any, ...]:
        return load, (self.spec, self.names)


def _is_no_text(processor: Any, i: int) -> bool:
    return processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i)
