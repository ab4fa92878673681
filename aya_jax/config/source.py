"""Reading gin: files, includes, imports and flags into one table of bindings that remember where they came from.

The grammar is gin-config's own (`gin.config_parser.ConfigParser`); what is added here is that reading goes on after a
mistake, so that a user hears of all of them at once, and that nothing is put into gin's global state.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import os
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aya_jax.config.errors import did_you_mean, near_names
from gin import config_parser

GIN_FOLDER = Path(__file__).resolve().parents[2] / "gin"
"""The run files that come with the package; `train/x.gin` and `gin/train/x.gin` both find one, from any folder."""

_UNPARSABLE = (SyntaxError, tokenize.TokenError, StopIteration, RecursionError, TypeError, ValueError)
_STATEMENT = re.compile(r"(?:import|include|from)\s|(?P<key>[A-Za-z_][\w./]*)\s*(?P<sign>[=:])")
_FLAG = re.compile(r"(?:--gin\.)?\s*(?P<key>[A-Za-z_][\w./]*)\s*=(?P<value>.*)", re.DOTALL)
_IN_BLOCK = re.compile(r"\s+(?P<field>[A-Za-z_]\w*)\s*=")


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@scope/Name()` in a gin file; `called` is False when the parentheses are missing."""

    scope: str
    name: str
    called: bool


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%NAME` in a gin file."""

    name: str


class Unreadable:
    """The value of a binding whose text could not be parsed; the mistake itself has been reported."""

    def __repr__(self) -> str:
        return "..."


UNREADABLE = Unreadable()


@dataclasses.dataclass(frozen=True)
class Where:
    """Where a binding stands: `file` and `line`, or the text of the flag and its number."""

    file: str = ""
    line: int = 0
    flag: str = ""

    def __str__(self) -> str:
        return self.flag or f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Key:
    """What is bound: a field of a class in a scope, or a macro (`field` is empty, `name` is the macro's)."""

    scope: str
    name: str
    field: str

    def __str__(self) -> str:
        return "/".join(filter(None, [self.scope, ".".join(filter(None, [self.name, self.field]))]))

    @property
    def is_macro(self) -> bool:
        return not self.field


@dataclasses.dataclass(frozen=True)
class Binding:
    """One `key = value` with the place where it was written.

    `as_string`: a flag's value was no gin literal and was taken as text; `offered`: a default that may stay unused.
    """

    key: Key
    value: Any
    where: Where
    as_string: bool = False
    offered: bool = False


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        scope, _, name = scoped_configurable_name.rpartition("/")
        return Reference(scope, name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


@dataclasses.dataclass(frozen=True)
class _BadStatement:
    line: int
    message: str
    keys: tuple[str, ...]


def macros_in(value: Any) -> Iterator[str]:
    """The names of the macros in a value, however deep."""
    if isinstance(value, Macro):
        yield value.name
    elif isinstance(value, dict):
        for item in (*value, *value.values()):
            yield from macros_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from macros_in(item)


def make_key(text: str) -> Key:
    """The key of `scope/Class.field`, `NAME` or gin's long form of a macro, `NAME/macro.value`."""
    scope, name, field = config_parser.parse_binding_key(text)
    if field == "value" and name in ("macro", "gin.macro"):
        scope, _, name = scope.rpartition("/")
        field = ""
    return Key(scope, name, field)


def parse_value(text: str) -> Any:
    """The value of one gin literal, reference or macro.

    Raises:
      ValueError: the text is none of these.
    """
    try:
        parser = config_parser.ConfigParser(text, _Delegate())
        value = parser.parse_value()
    except _UNPARSABLE as error:
        raise ValueError(f"no gin value: {text}") from error
    if parser.current_token.type not in (tokenize.NEWLINE, tokenize.ENDMARKER):
        raise ValueError(f"no gin value: {text}")
    return value


def statements(text: str) -> Iterator[Any]:
    """The statements of a gin file in order; after one that cannot be parsed, goes on with the next that can."""
    lines = io.StringIO(text).readlines()
    first = 0
    while first < len(lines):
        start = first
        try:
            parser = config_parser.ConfigParser("\n" * first + "".join(lines[first:]), _Delegate())
            while True:
                start = _skip_blank(lines, max(start, parser.current_token.start[0] - 1))
                statement = parser.parse_statement()
                if statement is None:
                    return
                yield statement
        except _UNPARSABLE as error:
            after = next((n for n in range(start + 1, len(lines)) if _STATEMENT.match(lines[n])), len(lines))
            yield _BadStatement(start + 1, _explain(error, start + 1, lines), _keys_in(lines[start:after]))
            first = after


def _skip_blank(lines: Sequence[str], number: int) -> int:
    while number < len(lines) and lines[number].strip()[:1] in ("", "#"):
        number += 1
    return min(number, len(lines) - 1)


def _keys_in(lines: Sequence[str]) -> tuple[str, ...]:
    """What a statement that cannot be parsed would have bound, as far as its text tells."""
    match = _STATEMENT.match(lines[0])
    if match is None or match["key"] is None:
        return ()
    if match["sign"] == "=":
        return (match["key"],)
    fields = (found["field"] for line in lines[1:] if (found := _IN_BLOCK.match(line)))
    return tuple(f"{match['key']}.{field}" for field in fields)


def _explain(error: BaseException, start: int, lines: Sequence[str]) -> str:
    if isinstance(error, tokenize.TokenError) or "EOF" in str(error):
        return "a bracket or a quote is not closed"
    if not isinstance(error, SyntaxError):
        return "cannot be parsed"
    line = error.lineno or start
    if start < line <= len(lines) and _STATEMENT.match(lines[line - 1]):
        return f"a bracket is not closed before line {line}"
    message = (error.msg or "").splitlines()
    token = re.search(r"Failed to parse token '(.*)'", message[-1]) if message else None
    if token:
        name = token[1]
        said = (
            f"{name} is no gin value: write '{name}' for text, %{name} for a macro, @{name}() for a configuration class"
        )
    else:
        said = (message[0] if message else "cannot be parsed").strip().rstrip(".")
        said = said[:1].lower() + said[1:]
    return said if line == start else f"{said} (at line {line})"


class Source:
    """All that the gin files and flags say.

    Attributes:
      bindings: the last binding of each key, in the order in which they were bound.
      overridden_macros: macros in bindings that a later one has overridden.
      overridden_classes: classes that such bindings would have built an object of.
      imports: modules named by `import`, in order.
      problems: (place, text) of each thing that could not be read.
      complete: False when something was lost whose keys are not known (a missing include, a failed import), so that
        what seems to be missing or unused may not be.
    """

    def __init__(self, search_paths: Sequence[str | os.PathLike[str]] = ()):
        self.search_paths = [*map(Path, search_paths), Path(), GIN_FOLDER, GIN_FOLDER.parent]
        self.bindings: dict[Key, Binding] = {}
        self.overridden_macros: set[str] = set()
        self.overridden_classes: set[str] = set()
        self.imports: list[str] = []
        self.problems: list[tuple[Where | None, str]] = []
        self.complete = True
        self._reading: list[Path] = []
        self._flags = 0

    def read_file(
        self, name: str | os.PathLike[str], asked_by: Where | None = None, beside: Path | None = None
    ) -> None:
        """Reads a gin file and what it includes; `asked_by` is the include statement, `beside` its file's folder."""
        found = self._find(name, beside)
        if found is None:
            return self._lost(asked_by, self._not_found(str(name), beside))
        if found.resolve() in self._reading:
            chain = " > ".join(_shown(path) for path in [*self._reading, found])
            return self._lost(asked_by, f"{name} includes itself: {chain}")
        try:
            text = found.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = (
                "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
            )
            return self._lost(asked_by, f"{_shown(found)} {reason}")
        self._reading.append(found.resolve())
        for statement in statements(text):
            self._take(statement, found)
        self._reading.pop()
        return None

    def read_flag(self, text: str) -> None:
        """Reads a flag, `NAME=VALUE` with or without `--gin.`; a VALUE that is no gin literal is text."""
        flag = text if text.startswith("--gin.") else f"--gin.{text}"
        match = _FLAG.fullmatch(text)
        self._flags += 1
        where = Where(flag=flag, line=self._flags)
        if match is None:
            return self._lost(where, "expected --gin.NAME=VALUE")
        written, as_string = match["value"].strip(), False
        try:
            value = parse_value(written)
        except ValueError:
            value, as_string = written, True
        return self._bind(match["key"], value, where, as_string)

    def read_defaults(self, macros: Mapping[str, Any]) -> None:
        """Binds macros that the command line offers, wherever nothing else has bound them; none need be used."""
        for name, value in macros.items():
            key = make_key(name)
            self.bindings.setdefault(key, Binding(key, value, Where(flag=f"default of {name}"), offered=True))

    def _take(self, statement: Any, file: Path) -> None:
        if isinstance(statement, _BadStatement):
            where = Where(_shown(file), statement.line)
            self.problems.append((where, statement.message))
            self.complete = self.complete and bool(statement.keys)
            for key in statement.keys:
                self._bind(key, UNREADABLE, where)
            return
        where = Where(_shown(file), statement.location.line_num)
        if isinstance(statement, config_parser.IncludeStatement):
            self.read_file(statement.filename, where, file.parent)
        elif isinstance(statement, config_parser.ImportStatement):
            self._import(statement.module, where)
        elif isinstance(statement, config_parser.BindingStatement):
            scoped = "/".join(filter(None, [statement.scope, statement.selector]))
            self._bind(".".join(filter(None, [scoped, statement.arg_name])), statement.value, where)

    def _bind(self, text: str, value: Any, where: Where, as_string: bool = False) -> None:
        key = make_key(text)
        # Taken out first, so that the order of keys is the order in which they were bound last.
        overridden = self.bindings.pop(key, None)
        if overridden is not None:
            self.overridden_macros.update(macros_in(overridden.value))
            if isinstance(overridden.value, Reference):
                self.overridden_classes.add(overridden.value.name)
        self.bindings[key] = Binding(key, value, where, as_string)

    def _import(self, module: str, where: Where) -> None:
        """Imports a user's module, which may lie in the current directory, for the tasks and classes it registers."""
        if module.startswith("__gin__"):
            return self._lost(where, "gin's dynamic registration is not supported; import the module that registers")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(module)
        except Exception as error:
            return self._lost(where, f"import {module} failed: {type(error).__name__}: {error}")
        if module not in self.imports:
            self.imports.append(module)
        return None

    def _lost(self, where: Where | None, message: str) -> None:
        self.complete = False
        self.problems.append((where, message))

    def _folders(self, beside: Path | None) -> list[Path]:
        return [*self.search_paths, *([beside] if beside else [])]

    def _find(self, name: str | os.PathLike[str], beside: Path | None) -> Path | None:
        candidates = (folder / Path(name).expanduser() for folder in self._folders(beside))
        return next((path for path in candidates if os.path.isfile(path)), None)

    def _not_found(self, name: str, beside: Path | None) -> str:
        if os.path.isdir(Path(name).expanduser()):
            return f"{name} is a folder and no gin file; a run directory is given as --gin.RUN_DIR={name}"
        folders = self._folders(beside)
        neighbours = {
            os.path.normpath(Path(name).parent / path.name): None
            for folder in folders
            if os.path.isdir((folder / name).parent)
            for path in (folder / name).parent.glob("*.gin")
        }
        searched = (
            "" if Path(name).is_absolute() else f" (searched in {', '.join(dict.fromkeys(map(_shown, folders)))})"
        )
        return f"no file {name}{searched}{did_you_mean(near_names(os.path.normpath(name), neighbours))}"


def _shown(path: Path) -> str:
    """The path as a user wants to read it: from the current directory where it lies below it."""
    absolute, here = path.resolve(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)
