"""Small random models with a chat tokenizer, which may have a token of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tools.random_model import shape, write_random_model

ROWS = 344
"""Of the token tables: the tokenizer has 340 tokens, so that some rows are of none."""


def chat_model(folder: Path, seed: int, *, added: str | None = None, layers: int = 2) -> Path:
    """A Hugging Face directory; `added` is a control token that its tokenizer has beside the others."""
    write_random_model(folder, dataclasses.replace(shape(32, layers), vocab_size=ROWS), seed)
    if added is not None:
        file = folder / "tokenizer.json"
        fields = json.loads(file.read_text(encoding="utf-8"))
        ids = [*fields["model"]["vocab"].values(), *(token["id"] for token in fields["added_tokens"])]
        fields["added_tokens"].append(
            fields["added_tokens"][-1] | {"content": added, "id": max(ids) + 1, "special": True}
        )
        file.write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")
    return folder
