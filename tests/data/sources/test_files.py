"""File sources: every format, every kind of damage, and the law that shards partition the source."""

from __future__ import annotations

import glob
import gzip
import json
import logging
import os
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data.sources import BadRecord, FileSource
from aya_jax.data.sources.files import deal
from aya_jax.data.sources.storage import File

# U+2028, U+0085 and a form feed are line ends to str.splitlines, and text to JSON Lines.
DOCUMENTS = ["one", "zwei\nZeilen", "三\u2028行\x85\x0c", "", "🙂 four"]


def jsonl(texts: list[str], field: str = "text") -> bytes:
    lines = [json.dumps({field: text, "n": n}, ensure_ascii=False) for n, text in enumerate(texts)]
    return ("\n".join(lines) + "\n").encode()


def write(path: Path, content: bytes) -> Path:
    """Writes content, compressed as the path's suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


def texts(source: FileSource, shard: int = 0, num_shards: int = 1) -> list[str]:
    return [record.text for record in source.records(shard, num_shards)]


# ---- formats


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_jsonl_plain_and_compressed(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.jsonl{suffix}", jsonl(DOCUMENTS))
    records = list(FileSource((str(path),)).records(0, 1))
    assert [record.text for record in records] == DOCUMENTS
    assert [record.id for record in records] == [f"a.jsonl{suffix}:{line}" for line in range(1, 6)]
    assert records[1].location == f"{path}:2"
    assert records[1].fields == {"n": 1}


def test_jsonl_byte_order_mark_blank_lines_and_no_last_newline(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n\n  \n{"text": "b"}')
    records = list(FileSource((str(path),)).records(0, 1))
    assert [(record.id, record.text) for record in records] == [("a.jsonl:1", "a"), ("a.jsonl:4", "b")]


def test_parquet_by_row_groups(tmp_path: Path) -> None:
    many = [f"document {n} ñ" for n in range(1500)]
    table = pa.table({"content": many, "n": range(1500)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    source = FileSource((str(tmp_path / "*.parquet"),), text_field="content")
    records = list(source.records(0, 1))
    assert [record.text for record in records] == many
    assert records[1499].id == "a.parquet:1500"
    assert records[1499].fields == {"n": 1499}
    assert texts(source, 1, 4) == many[1::4]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_string_kinds(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(DOCUMENTS).cast(kind)}), tmp_path / "a.parquet")
    assert texts(FileSource((str(tmp_path / "a.parquet"),))) == DOCUMENTS


@pytest.mark.parametrize("suffix", [".txt", ".md", ".txt.gz"])
def test_a_text_file_is_a_document(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"b{suffix}", b"\xef\xbb\xbfzwei\r\nZeilen\n")
    write(tmp_path / f"a{suffix}", b"eins")
    records = list(FileSource((str(tmp_path / f"*{suffix}"),)).records(0, 1))
    assert [record.text for record in records] == ["eins", "zwei\r\nZeilen\n"]
    assert records[0].id == f"a{suffix}:1"


def test_a_line_is_a_document(tmp_path: Path) -> None:
    path = write(tmp_path / "a.py", "one\n\ntwo \u2028 half\nthree".encode())
    records = list(FileSource((str(path),), format="lines").records(0, 1))
    assert [(r.id, r.text) for r in records] == [("a.py:1", "one"), ("a.py:3", "two \u2028 half"), ("a.py:4", "three")]


def test_several_zstd_frames_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(jsonl(["a"])) + zstandard.compress(jsonl(["b"])))
    assert texts(FileSource((str(path),))) == ["a", "b"]


def test_object_stores_go_through_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    remote = fsspec.filesystem("memory")
    remote.pipe("/bucket/x/a.jsonl.gz", gzip.compress(jsonl(["a", "b"])))
    remote.pipe("/bucket/y/a.jsonl", jsonl(["c"]))
    pq.write_table(pa.table({"text": ["d"]}), tmp_path / "p.parquet")
    remote.pipe("/bucket/y/p.parquet", (tmp_path / "p.parquet").read_bytes())
    source = FileSource(("memory://bucket/*/*",))
    try:
        records = list(source.records(0, 1))
        assert [(record.id, record.text) for record in records] == [
            ("x/a.jsonl.gz:1", "a"),
            ("x/a.jsonl.gz:2", "b"),
            ("y/a.jsonl:1", "c"),
            ("y/p.parquet:1", "d"),
        ]
        before = source.digest()
        remote.pipe("/bucket/y/a.jsonl", jsonl(["longer"]))
        assert source.digest() != before
    finally:
        remote.rm("/bucket", recursive=True)


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/*.jsonl", "gcsfs"), ("s3://bucket/*.jsonl", "s3fs")])
def test_a_missing_object_store_library_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UserError, match=f"pip install {package}"):
        next(FileSource((url,)).records(0, 1))


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UserError, match="no file system is known for nowhere://"):
        next(FileSource(("nowhere://a/*.jsonl",)).records(0, 1))


# ---- names and digests


def test_files_are_sorted_once_and_named_below_their_common_directory(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a/x.jsonl", "a/y.jsonl"):
        write(tmp_path / name, jsonl([name]))
    source = FileSource((f"{tmp_path}/b/*.jsonl", f"{tmp_path}/**/*.jsonl"))
    assert [record.id for record in source.records(0, 1)] == ["a/x.jsonl:1", "a/y.jsonl:1", "b/x.jsonl:1"]


def test_a_directory_with_brackets_in_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "v[1]" / "a.jsonl", jsonl(["a"]))
    assert texts(FileSource((path,))) == ["a"]


def test_digest_follows_content_and_reading_but_not_the_place(tmp_path: Path) -> None:
    here, there = (write(tmp_path / place / "a.jsonl", jsonl(["a"])) for place in ("here", "there"))
    digest = FileSource((str(here),)).digest()
    assert len(digest) == 64
    assert FileSource((str(there),)).digest() == digest
    assert FileSource((str(here),), text_field="n").digest() != digest
    write(there, jsonl(["b"]))
    assert FileSource((str(there),)).digest() != digest


# ---- shards


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    num_shards=st.integers(1, 17),
    parquet=st.booleans(),
)
def test_shards_partition_the_source(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], num_shards: int, parquet: bool
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    for n, size in enumerate(sizes):
        documents = [f"{n}/{i}" for i in range(size)]
        if parquet and n % 2:
            pq.write_table(pa.table({"text": documents}), folder / f"{n}.parquet", row_group_size=5)
        else:
            write(folder / f"{n}.jsonl", jsonl(documents))
    source = FileSource((f"{folder}/*",))
    shards = [[record.id for record in source.records(shard, num_shards)] for shard in range(num_shards)]
    dealt = [id_ for shard in shards for id_ in shard]
    assert sorted(dealt) == sorted(record.id for record in source.records(0, 1))
    assert len(set(dealt)) == len(dealt) == sum(sizes)
    assert shards == [[record.id for record in source.records(shard, num_shards)] for shard in range(num_shards)]


@given(st.integers(1, 40), st.integers(1, 40))
def test_files_are_dealt_evenly(num_files: int, num_shards: int) -> None:
    files = tuple(File(f"/d/{n}", str(n)) for n in range(num_files))
    shards = [deal(files, shard, num_shards) for shard in range(num_shards)]
    parts = sorted((int(part.file.name), part.count, part.index) for shard in shards for part in shard)
    expected = []
    for n in range(num_files):
        count = max(1, len(range(n, num_shards, num_files)))
        expected += [(n, count, index) for index in range(count)]
    assert parts == expected
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(("shard", "num_shards"), [(-1, 2), (2, 2), (0, 0)])
def test_a_shard_out_of_range_is_a_programming_error(shard: int, num_shards: int) -> None:
    with pytest.raises(ValueError, match="shard"):
        next(FileSource(("x",)).records(shard, num_shards))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(lines: int) -> int:
        path = tmp_path / f"{lines}.jsonl.gz"
        with gzip.open(path, "wb", compresslevel=1) as stream:
            for n in range(lines):
                stream.write(json.dumps({"text": f"{n} " * 200}).encode() + b"\n")
        tracemalloc.start()
        assert sum(1 for _ in FileSource((str(path),)).records(0, 1)) == lines
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(6000) < 1.5 * peak(600)


# ---- bad input


LONE_SURROGATE = b'{"text": "caf\xc3\xa9 \\ud83d"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut', r":2: broken JSON: Unterminated string starting at \(character 10 of"),
        (b'{"text": 1' + b"0" * 5000 + b"}", r":2: broken JSON: Exceeds the limit"),
        (b"[" * 100_000, r":2: broken JSON"),
        (b'["text"]', r":2: a JSON array, not an object with a field 'text'"),
        (b"3", r":2: a JSON number, not an object"),
        (b'{"txt": "a", "n": 1}', r":2: no field 'text' \(there are: txt, n\); did you mean text_field='txt'\?"),
        (b'{"body": "a"}', r":2: no field 'text' \(there are: body\); name the one that is meant in text_field"),
        (b"{}", r":2: no field 'text' \(there are: none\)"),
        (b'{"text": 7}', r":2: field 'text' is int, not a string"),
        (b'{"text": null}', r":2: field 'text' is null, not a string"),
        (b'{"text": "a\xff"}', r":2: invalid UTF-8 \(0xff\) at byte 11 of the line, byte 29 of the uncompressed file"),
        (LONE_SURROGATE, r":2: field 'text' has half a surrogate pair at character 5"),
    ],
)
def test_a_bad_line_is_named_or_left_out(
    tmp_path: Path, line: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = b'{"text": "first"}'
    path = write(tmp_path / "a.jsonl.gz", first + b"\n" + line + b'\n{"text": "last"}\n')
    seen = FileSource((str(path),)).records(0, 1)
    assert next(seen).text == "first"
    with pytest.raises(BadRecord, match=message):
        next(seen)
    skipped: Counter[str] = Counter()
    with caplog.at_level(logging.WARNING):
        kept = [r.text for r in FileSource((str(path),), on_bad_record="skip").records(0, 1, skipped)]
    assert kept == ["first", "last"]
    assert skipped == {str(path): 1}
    assert f"{path}: bad records left out: 1; the first: {path}:2" in caplog.text


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_an_empty_file_is_named_or_left_out(tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    else:
        write(tmp_path / name, b"")
    write(tmp_path / "b.jsonl", jsonl(["b"]))
    with pytest.raises(BadRecord, match=rf"{name}: the file (is empty|has no rows)"):
        texts(FileSource((f"{tmp_path}/*",)))
    skipped: Counter[str] = Counter()
    source = FileSource((f"{tmp_path}/*",), on_bad_record="skip")
    kept = [record.text for shard in range(5) for record in source.records(shard, 5, skipped)]
    assert kept == ["b"]
    assert sum(skipped.values()) == 1


def test_blank_lines_only(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b"\n \n")
    with pytest.raises(BadRecord, match="blank lines only"):
        texts(FileSource((f"{tmp_path}/a.jsonl",)))


def test_a_text_file_that_is_no_utf8_names_line_and_byte(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"one\ntwo \xe9\n")
    with pytest.raises(BadRecord, match=r"a\.txt:2: invalid UTF-8 \(0xe9\) at byte 8"):
        texts(FileSource((f"{tmp_path}/a.txt",)))


def test_nothing_matched(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", jsonl(["a"]))
    with pytest.raises(UserError, match=r"no file matches '.*\.json\.gz'$"):
        texts(FileSource((f"{tmp_path}/a.jsonl", f"{tmp_path}/*.json.gz")))
    with pytest.raises(UserError, match=r"there is no directory '.*/nowhere'"):
        texts(FileSource((f"{tmp_path}/nowhere/*.jsonl",)))


def test_a_suffix_that_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.dat.gz", jsonl(["a"]))
    with pytest.raises(UserError, match="set format: jsonl, parquet, text or lines"):
        texts(FileSource((f"{tmp_path}/a.dat.gz",)))
    assert texts(FileSource((f"{tmp_path}/a.dat.gz",), format="jsonl")) == ["a"]


LONG = jsonl([f"document number {n} {n * 7919 % 1000}" for n in range(3000)])


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 8]) + content[middle + 8 :]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
@pytest.mark.parametrize(("damage", "message"), [(cut, "is truncated"), (flip, "is damaged")])
@pytest.mark.parametrize("on_bad_record", ["stop", "skip"])
def test_a_damaged_compressed_file_stops_either_way(
    tmp_path: Path, compress: Callable[[bytes], bytes], damage: Callable[[bytes], bytes], message: str, on_bad_record
) -> None:
    suffix = ".gz" if compress is gzip.compress else ".zst"
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(damage(compress(LONG)))
    with pytest.raises(UserError, match=rf"a\.jsonl{suffix}: the compressed file {message}"):
        texts(FileSource((str(path),), format="lines", on_bad_record=on_bad_record))


def test_a_zstd_file_cut_between_blocks_is_truncated(tmp_path: Path) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(compressor.compress(LONG) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    with pytest.raises(UserError, match=r"a\.jsonl\.zst: the compressed file is truncated"):
        texts(FileSource((str(path),)))


def test_parquet_without_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["a"], "texts": ["b"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: no field 'text' \(there are: content, texts, n\); did you mean"):
        texts(FileSource((f"{tmp_path}/a.parquet",)))
    with pytest.raises(UserError, match=r"a\.parquet: column 'n' holds int64, not strings"):
        texts(FileSource((f"{tmp_path}/a.parquet",), text_field="n"))


def test_parquet_null_and_invalid_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"good", None, b"bad \xff"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": raw}), tmp_path / "a.parquet")
    source = FileSource((f"{tmp_path}/a.parquet",), on_bad_record="skip")
    skipped: Counter[str] = Counter()
    assert [record.text for record in source.records(0, 1, skipped)] == ["good"]
    assert sum(skipped.values()) == 2
    with pytest.raises(BadRecord, match=r"a\.parquet:2: field 'text' is null"):
        texts(FileSource((f"{tmp_path}/a.parquet",)))
    with pytest.raises(BadRecord, match=r"a\.parquet:3: field 'text' is not valid UTF-8 at byte 4"):
        texts(FileSource((f"{tmp_path}/a.parquet",)), 2, 3)


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet"])
def test_what_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: not a readable Parquet file"):
        texts(FileSource((f"{tmp_path}/a.parquet",)))


@pytest.mark.real_data
@pytest.mark.parametrize("num_shards", [1, 5, 64])
def test_every_line_of_the_corpora_is_read_once(num_shards: int) -> None:
    pattern = f"{os.environ['AYA_DATA']}/corpus/*.jsonl.gz"
    lines = 0
    for path in glob.glob(pattern):
        with gzip.open(path) as stream:
            lines += stream.read().count(b"\n")
    source = FileSource((pattern,))
    ids = [record.id for shard in range(num_shards) for record in source.records(shard, num_shards)]
    assert len(ids) == len(set(ids)) == lines
