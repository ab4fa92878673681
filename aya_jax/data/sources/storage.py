"""Finding files by pattern and reading them as streams, here and on object stores, compressed or not."""

from __future__ import annotations

import dataclasses
import functools
import glob
import gzip
import hashlib
import io
import os
import posixpath
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import zstandard

from aya_jax.config import UserError

COMPRESSIONS = (".gz", ".zst")
_CHUNK = 1 << 20
# What object stores call the fingerprint of an object, best first.
_REMOTE_MARKS = ("md5Hash", "crc32c", "ETag", "etag", "mtime", "LastModified", "updated", "created")


@dataclasses.dataclass(frozen=True)
class File:
    """One input file.

    Attributes:
      path: as the user's pattern gives it, for messages.
      name: the path below the directory that all matched files share, with "/": the same wherever the files lie.
    """

    path: str
    name: str


def find(patterns: Sequence[str | os.PathLike[str]]) -> tuple[File, ...]:
    """The files that the patterns match, each once, sorted by path.

    A pattern is a path with `*`, `?`, `[...]` and `**`; one with a scheme (gs://, s3://, ...) goes through fsspec.

    Raises:
      UserError: a pattern matches no file, or its file system is not installed.
    """
    paths: set[str] = set()
    for pattern in map(os.fspath, patterns):
        found = _glob_remote(pattern) if _is_remote(pattern) else _glob_local(pattern)
        if not found:
            raise UserError(f"no file matches {pattern!r}{_nearest_directory(pattern)}")
        paths.update(found)
    ordered = sorted(paths)
    parents = [posixpath.dirname(path.replace(os.sep, "/")) for path in ordered]
    shared = posixpath.commonprefix([parent.split("/") for parent in parents])
    return tuple(File(path, "/".join(path.replace(os.sep, "/").split("/")[len(shared) :])) for path in ordered)


def fingerprint(file: File) -> tuple[str, ...]:
    """(name, size, mark) of a file; a local file's mark is the sha256 of its bytes, a remote one's is the store's.

    A remote file's mark is its checksum, entity tag or modification time, whichever the store gives first.

    Raises:
      UserError: the file cannot be read.
    """
    if _is_remote(file.path):
        info = _filesystem(file.path).info(file.path)
        mark = next((f"{key}={info[key]}" for key in _REMOTE_MARKS if info.get(key)), "")
        return file.name, str(info.get("size")), mark
    with _readable(file.path):
        status = os.stat(file.path)
        return file.name, str(status.st_size), _content_digest(file.path, status.st_size, status.st_mtime_ns)


@contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """The uncompressed bytes of a file as a buffered stream.

    Raises:
      UserError: from opening and from any read inside the block: no such file or right, a truncated or damaged .gz or
        .zst.
    """
    with _readable(file.path), open_raw(file) as raw:
        if file.path.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream
        elif file.path.endswith(".zst"):
            with io.BufferedReader(_ZstdStream(raw), _CHUNK) as stream:
                yield stream
        else:
            yield raw


def open_raw(file: File) -> BinaryIO:
    """The bytes of a file as they lie, seekable."""
    return _filesystem(file.path).open(file.path, "rb") if _is_remote(file.path) else open(file.path, "rb")


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turns what goes wrong while a file is read into one sentence with its path."""
    try:
        yield
    except EOFError as error:
        raise UserError(f"{path}: the compressed file is truncated; copy or download it again") from error
    except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise UserError(f"{path}: the compressed file is damaged ({error}); copy or download it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


class _ZstdStream(io.RawIOBase):
    """Decompresses zstd frame after frame, and raises EOFError where the last one is cut.

    zstandard's own stream reader ends a cut frame silently, which would lose the rest of a corpus.
    """

    def __init__(self, raw: BinaryIO):
        self._raw = raw
        self._context = zstandard.ZstdDecompressor()
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._compressed:
                self._compressed = self._raw.read(_CHUNK // 8)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._ready = memoryview(self._decompress())
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompress(self) -> bytes:
        if self._frame is None:
            self._frame = self._context.decompressobj()
        text = self._frame.decompress(self._compressed)
        self._compressed = b""
        if self._frame.eof:
            self._compressed, self._frame = self._frame.unused_data, None
        return text


def _is_remote(path: str) -> bool:
    return "://" in path


def _glob_local(pattern: str) -> list[str]:
    if os.path.isfile(pattern):  # a directory's name may have brackets in it
        return [pattern]
    return [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]


def _glob_remote(pattern: str) -> list[str]:
    filesystem = _filesystem(pattern)
    scheme = pattern.split("://", 1)[0]
    try:
        found = filesystem.glob(pattern, detail=True)
    except OSError as error:
        raise UserError(f"{pattern}: cannot be listed: {error}") from error
    files = [path for path, info in found.items() if info["type"] == "file"]
    return [f"{scheme}://{path}" if "://" not in path else path for path in files]


def _filesystem(path: str) -> Any:
    """The fsspec file system of a path with a scheme."""
    scheme = path.split("://", 1)[0]
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except ImportError as error:
        need = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs"}.get(scheme, "fsspec")
        raise UserError(f"{path}: reading {scheme}:// needs `pip install {need}` ({error})") from error
    except ValueError as error:
        raise UserError(f"{path}: no file system is known for {scheme}:// ({error})") from error


def _nearest_directory(pattern: str) -> str:
    """Says how far a local pattern's directories exist."""
    directory = os.path.dirname(pattern.split("*")[0].split("?")[0].split("[")[0])
    if _is_remote(pattern) or not directory or os.path.isdir(directory):
        return ""
    return f": there is no directory {directory!r}"


@functools.lru_cache(maxsize=4096)
def _content_digest(path: str, size: int, modified: int) -> str:
    """sha256 of a local file; size and time of change are part of the cache's key only."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
