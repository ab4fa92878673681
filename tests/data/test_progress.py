"""The table that `aya prepare` ends with."""

import io

from rich.console import Console

from aya_jax.data.progress import summary_table
from aya_jax.data.store import Manifest, ShardInfo, SourceInfo, VocabularyInfo


def manifest(task: str, split: str, documents: int, tokens: int, num_bytes: int) -> Manifest:
    return Manifest(
        task=task,
        split=split,
        language="de",
        domain="text",
        vocabulary=VocabularyInfo(digest="0", size=9, pad_id=0, bos_id=1, eos_id=2, spec="bytes"),
        source=SourceInfo(description="", digest=""),
        shards=(ShardInfo(documents=documents, tokens=tokens, bytes=num_bytes, sha256=""),),
    )


def test_the_table_adds_up():
    table = summary_table(
        "stores",
        [
            manifest("text_de", "train", 90, 900_000, 3_000_000),
            manifest("text_de", "validation", 10, 100_000, 500_000),
            manifest("text_el", "train", 5, 1_000_000, 500_000),
        ],
    )
    out = io.StringIO()
    Console(file=out, width=100).print(table)
    rows = {line.split()[0]: line.split()[1:] for line in out.getvalue().splitlines() if line.strip()}
    assert rows["text_de"] == ["de", "text", "100", "1,000,000", "3.50", "3.50", "10.0%"]
    assert rows["text_el"] == ["de", "text", "5", "1,000,000", "0.50", "0.50", "0.0%"]
    assert rows["all"] == ["105", "2,000,000", "4.00", "2.00", "5.0%"]
