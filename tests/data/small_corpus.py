"""A corpus of a few documents in the layout that `data_dir` has, for the tests of tasks and of preparation."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

TEXTS = {
    "de": [f"Satz Nummer {i}: Größe und Maß, {'wieder ' * (i % 7)}und Schluss." for i in range(60)],
    "ja": [f"第{i}文です。{'繰り返し' * (i % 5)}終わり。" for i in range(40)],
}
CODE = {"web_code": [f"def f{i}(x):\n\treturn x + {i}\n" for i in range(30)]}


def write(directory: Path) -> Path:
    """Writes German (gzipped JSONL), Japanese (plain JSONL) and web code (two files)."""
    write_jsonl(directory / "corpus" / "de.jsonl.gz", TEXTS["de"])
    write_jsonl(directory / "corpus" / "ja.jsonl", TEXTS["ja"])
    write_jsonl(directory / "code" / "web_code" / "a.jsonl.gz", CODE["web_code"][:20])
    write_jsonl(directory / "code" / "web_code" / "b.jsonl.gz", CODE["web_code"][20:])
    return directory


def write_jsonl(path: Path, texts: list[str]) -> Path:
    """One `{"text": ...}` per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps({"text": text, "lang": "xx"}, ensure_ascii=False) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def tree_digests(directory: Path) -> dict[str, str]:
    """File name → sha256 of every file below a directory."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
