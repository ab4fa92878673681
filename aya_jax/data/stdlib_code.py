"""The four kinds of code data, from the standard library of the Python that runs.

Every machine that runs this project has several megabytes of good, openly licensed code on it already: the standard
library. It stands in for the code corpora of "To Code, or Not To Code?" (arXiv:2408.10914, section 2.1) where no
corpus is given:

| kind            | here                                                                                |
| --------------- | ----------------------------------------------------------------------------------- |
| `web_code`      | whole source files                                                                  |
| `markup`        | Python's reST language reference (`pydoc_data/topics.py`), HTML help, CSS, reST     |
| `quality_code`  | documented functions and classes that need nothing but imports and built-ins to run |
| `code_adjacent` | docstrings under their signatures, and comment blocks, as prose                     |

Each module belongs to exactly one of the three Python kinds, by a hash of its path, so that what one kind holds out for
validation is never training text of another. Nothing is imported or run: files are read and parsed.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import hashlib
import io
import re
import sys
import sysconfig
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

from aya_jax.config import UserError
from aya_jax.data.sources.record import Record, check_shard

# Bytes of text per kind unless the caller asks for another bound: enough to tell the kinds apart, and little enough
# that the sample is prepared in seconds.
DEFAULT_BYTES = {"web_code": 1_800_000, "markup": 400_000, "quality_code": 400_000, "code_adjacent": 400_000}
KINDS = tuple(DEFAULT_BYTES)

# Out of 100 modules, how many go to each Python kind. Few functions stand on their own, hence the large second share.
_MODULE_SHARES = (("web_code", 40), ("quality_code", 40), ("code_adjacent", 20))

# Test suites, installed packages, and tables of characters that are data more than code.
_SKIPPED_DIRECTORIES = {
    *("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "__phello__"),
    *("encodings", "pydoc_data", "_bundled", "lib2to3", "turtledemo"),
}
_FILE_BYTES = (200, 64_000)  # smaller files say nothing; larger ones would crowd out the rest
_SNIPPET_BYTES = (200, 16_000)
_MARKUP_SUFFIXES = (".html", ".css", ".rst")

Document = tuple[str, str]  # path relative to the library, with `#name` for a part of a file; text


@dataclasses.dataclass(frozen=True)
class StandardLibrarySource:
    """One kind of code data as a source, in an order that depends on the library's files alone.

    Attributes:
      kind: one of `KINDS`.
      max_bytes: bound on the UTF-8 text, a whole number of documents; None is `DEFAULT_BYTES[kind]`.
      root: the standard library's directory; None is that of the running Python.
    """

    kind: str
    max_bytes: int | None = None
    root: str | None = None

    @property
    def description(self) -> str:
        """The kind and where it is from, without this machine's paths."""
        version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        return f"{self.kind} of {self.root or f'the standard library of {version}'}"

    def digest(self) -> str:
        """sha256 of all documents."""
        state = hashlib.sha256()
        for record in self.records(0, 1):
            text = record.text.encode()
            state.update(len(text).to_bytes(8, "little") + text)
        return state.hexdigest()

    def records(self, shard: int, num_shards: int) -> Iterator[Record]:
        """Documents whose number, from 0, is `shard` modulo `num_shards`.

        Raises:
          UserError: the kind is unknown, or there is no library on disk (a Python that runs from a zip file).
        """
        check_shard(shard, num_shards)
        for number, (path, text) in enumerate(_bounded(self.kind, self.max_bytes, self.root)):
            if number % num_shards == shard:
                yield Record(path, text, path, {})


@functools.lru_cache(maxsize=2 * len(KINDS))
def _bounded(kind: str, max_bytes: int | None, root: str | None) -> tuple[Document, ...]:
    """The documents of a source, kept: digest and two splits read them, and extracting takes a second."""
    if kind not in DEFAULT_BYTES:
        raise UserError(f"there is no kind of code {kind!r}; the kinds are {', '.join(KINDS)}")
    directory = Path(root or sysconfig.get_path("stdlib"))
    if not directory.is_dir():
        raise UserError(f"no Python standard library at {directory}; use a data directory with a code/ folder")
    left = DEFAULT_BYTES[kind] if max_bytes is None else max_bytes
    chosen = []
    for path, text in _all_documents(kind, directory):
        left -= len(text.encode())
        if left < 0:
            break
        chosen.append((path, text))
    return tuple(chosen)


def _all_documents(kind: str, directory: Path) -> Iterator[Document]:
    if kind == "markup":
        yield from _markup(directory)
        return
    split: Callable[[str, str], Iterator[Document]] = _SPLITTERS[kind]
    for path, source in _modules(directory, kind):
        yield from split(path, source)


def _modules(directory: Path, kind: str) -> Iterator[tuple[str, str]]:
    """Relative path and text of the Python files that belong to `kind`, sorted by path."""
    for file in _files(directory, (".py",)):
        path = file.relative_to(directory).as_posix()
        source = _read(file) if _kind_of_module(path) == kind else None
        if source is not None:
            yield path, source


def _kind_of_module(path: str) -> str:
    point = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little") % 100
    for kind, share in _MODULE_SHARES:
        if point < share:
            return kind
        point -= share
    raise AssertionError("the shares of _MODULE_SHARES must add up to 100")


def _files(directory: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files below `directory` with one of the suffixes, sorted at each level, skipped directories left out."""
    for entry in sorted(directory.iterdir(), key=lambda path: path.name):
        if entry.is_dir():
            if entry.name not in _SKIPPED_DIRECTORIES and not entry.name.startswith("config-"):
                yield from _files(entry, suffixes)
        elif entry.suffix in suffixes:
            yield entry


def _read(file: Path) -> str | None:
    """The file's text, or None where it is not valid UTF-8 (a few old modules declare another encoding)."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):  # templates and deliberately broken files
        return None


def _source_files(path: str, source: str) -> Iterator[Document]:
    if _FILE_BYTES[0] <= len(source.encode()) <= _FILE_BYTES[1]:
        yield path, source


# Markup ---------------------------------------------------------------------------------------------------------------


def _markup(directory: Path) -> Iterator[Document]:
    """HTML, CSS and reST files first (they are few), then the language reference, topic by topic."""
    files = list(_files(directory, _MARKUP_SUFFIXES))
    pydoc = directory / "pydoc_data"
    if pydoc.is_dir():
        files += _files(pydoc, _MARKUP_SUFFIXES)
    for file in files:
        text = _read(file)
        path = file.relative_to(directory).as_posix()
        for number, part in enumerate(_sections(text) if text else ()):
            yield f"{path}#{number}", part
    topics = pydoc / "topics.py"
    if topics.is_file():
        for name, text in _topics(topics.read_text(encoding="utf-8")):
            yield f"pydoc_data/topics.py#{name}", text


def _sections(text: str) -> list[str]:
    """Cuts an HTML page at its section elements; other markup is one part."""
    parts = re.split(r"(?=<section\b)", text) if "<section" in text else [text]
    return [part for part in parts if len(part.encode()) >= _SNIPPET_BYTES[0]]


def _topics(source: str) -> Iterator[tuple[str, str]]:
    """The entries of `topics = {name: reST, ...}` that are long enough to be a document."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(node.value).items()):
                if len(text.encode()) >= _SNIPPET_BYTES[0]:
                    yield name, text


# Documented functions and classes that stand on their own -------------------------------------------------------------


def _standalone_definitions(path: str, source: str) -> Iterator[Document]:
    tree = _parse(source)
    if tree is None:
        return
    lines = source.splitlines(keepends=True)
    imports = _imports(tree)
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not ast.get_docstring(node):
            continue
        free = _free_names(node)
        if not free <= imports.keys():
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        header = sorted({imports[name] for name in free})
        body = "".join(lines[first - 1 : node.end_lineno])
        text = "\n".join(header) + "\n\n\n" + body if header else body
        if _SNIPPET_BYTES[0] <= len(text.encode()) <= _SNIPPET_BYTES[1]:
            yield f"{path}#{node.name}", text


def _imports(tree: ast.Module) -> dict[str, str]:
    """Names that the module's absolute imports bind, each with the statement that binds it alone."""
    bound: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                bound[name] = ast.unparse(ast.Import(names=[alias]))
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                bound[alias.asname or alias.name] = ast.unparse(ast.ImportFrom(node.module, [alias], 0))
    return bound


def _free_names(node: ast.AST) -> set[str]:
    """Names that the definition reads but nowhere binds, built-ins left out: what a reader would have to look up."""
    read: set[str] = set()
    module_globals: set[str] = set()
    bound = set(dir(builtins))
    for child in ast.walk(node):
        match child:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                bound.update(alias.asname or alias.name.partition(".")[0] for alias in names)
            case ast.Global(names=names):
                module_globals.update(names)
    return (read - bound) | module_globals


# Docstrings and comments as prose -------------------------------------------------------------------------------------


def _prose(path: str, source: str) -> Iterator[Document]:
    tree = _parse(source)
    if tree is None:
        return
    parts = [ast.get_docstring(tree) or "", *_described_signatures(tree), *_comment_blocks(source)]
    text = "\n\n".join(part for part in parts if part.strip())
    if _SNIPPET_BYTES[0] <= len(text.encode()) <= _FILE_BYTES[1]:
        yield path, text + "\n"


def _described_signatures(tree: ast.Module) -> Iterator[str]:
    """Each documented definition as its signature line and its docstring below it."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name, args=arguments) | ast.AsyncFunctionDef(name=name, args=arguments):
                signature = f"def {name}({ast.unparse(arguments)})"
            case ast.ClassDef(name=name, bases=bases):
                signature = f"class {name}({', '.join(map(ast.unparse, bases))})" if bases else f"class {name}"
            case _:
                continue
        docstring = ast.get_docstring(node)
        if docstring:
            yield f"{signature}\n\n{docstring}"


def _comment_blocks(source: str) -> Iterator[str]:
    """Runs of two or more comment lines that stand alone on their lines, without the comment signs."""
    block: list[str] = []
    last_line = 0
    for token in _comment_tokens(source):
        line = token.start[0]
        if block and line != last_line + 1:
            if len(block) > 1:
                yield "\n".join(block)
            block = []
        block.append(token.string.lstrip("#").removeprefix(" "))
        last_line = line
    if len(block) > 1:
        yield "\n".join(block)


def _comment_tokens(source: str) -> list[tokenize.TokenInfo]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    return [token for token in tokens if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")]


_SPLITTERS: dict[str, Callable[[str, str], Iterator[Document]]] = {
    "web_code": _source_files,
    "quality_code": _standalone_definitions,
    "code_adjacent": _prose,
}
