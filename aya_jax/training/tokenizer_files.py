"""The tokenizer beside the weights that were trained with it: `RUN_DIR/tokenizer/`."""

from __future__ import annotations

from pathlib import Path

from aya_jax.config.files import write_atomic
from aya_jax.data import arrays
from aya_jax.data.manifest import VocabularyInfo

FOLDER = "tokenizer"
COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
)
"""Small files of a Hugging Face directory that say how its tokenizer and its model are used."""


def keep_tokenizer(run_dir: str, store_dir: str, vocabulary: VocabularyInfo, start: str | None) -> None:
    """Copies the tokenizer of the token stores into a run directory, once.

    Args:
      run_dir: of the run.
      store_dir: of the token stores; the tokenizer is in `vocabulary/` there.
      vocabulary: what the stores say of it.
      start: the tokenizer's directory of the model that the run starts from: what else lies there is kept too, where the
        tokenizer is the same.
    """
    if vocabulary.spec == "bytes":
        return
    target, name = Path(run_dir) / FOLDER, Path(vocabulary.spec).name
    if (target / name).exists():
        return
    source = arrays.join(store_dir, "vocabulary")
    tokenizer = arrays.read_bytes(source, name)
    if tokenizer is None:  # a store of another origin
        return
    files = {each: arrays.read_bytes(source, each) for each in ("tokenizer_config.json", "chat_template.jinja")}
    if start is not None and (Path(start) / name).is_file() and (Path(start) / name).read_bytes() == tokenizer:
        files |= companions(Path(start))
    for file, content in files.items():
        if content is not None:
            write_atomic(target / file, content)
    write_atomic(target / name, tokenizer)


def companions(directory: Path) -> dict[str, bytes]:
    """The small files that a directory has."""
    return {name: (directory / name).read_bytes() for name in COMPANIONS if (directory / name).is_file()}
