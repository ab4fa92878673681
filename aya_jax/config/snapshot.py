"""A configuration as plain data: the resolved snapshot, its fingerprint, and what differs between two.

In a snapshot a configuration object is a dict of its fields (with `_class` at the root and wherever the field's type
leaves the class open), a tuple that holds dicts is a dict keyed "0", "1", ..., and a dot in a key is written %2E: so
every value has one dotted name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aya_jax.config.types import classes_in, field_types, is_configurable

if TYPE_CHECKING:
    from ml_collections import FrozenConfigDict

CLASS = "_class"
_FLOAT = "_float"


@dataclasses.dataclass(frozen=True)
class Absent:
    """Stands for the value of a field that one of two configurations does not have."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT = Absent()


@dataclasses.dataclass(frozen=True)
class Difference:
    """A dotted field whose values differ; `ABSENT` where one side has no such field."""

    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.field}: {self.old!r} -> {self.new!r}"


def to_plain(config: Any) -> dict[str, Any]:
    """The snapshot of a configuration object as nested dicts, tuples and scalars."""
    return {CLASS: type(config).__name__, **_fields(config)}


def freeze(snapshot: Mapping[str, Any]) -> FrozenConfigDict:
    """The `ml_collections.FrozenConfigDict` of a plain snapshot."""
    from ml_collections import FrozenConfigDict  # 60 ms that `aya --help` need not take

    return FrozenConfigDict(dict(snapshot))


def _fields(config: Any) -> dict[str, Any]:
    return {name: _plain(getattr(config, name), hint) for name, hint in field_types(type(config)).items()}


def _plain(value: Any, hint: Any) -> Any:
    if is_configurable(type(value)):
        return _fields(value) if classes_in(hint) == {type(value)} else to_plain(value)
    if isinstance(value, tuple | list):
        items = [_plain(item, hint) for item in value]
        if any(_holds_dict(item) for item in items):
            return {str(index): item for index, item in enumerate(items)}
        return tuple(items)
    if isinstance(value, Mapping):
        return {key_name(key): _plain(item, hint) for key, item in value.items()}
    return value


def key_name(key: Any) -> str:
    """A dict's key as part of a dotted name."""
    text = key if isinstance(key, str) else repr(key)
    return text.replace("%", "%25").replace(".", "%2E")


def _holds_dict(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, tuple) and any(map(_holds_dict, value)))


def to_json(snapshot: Mapping[str, Any]) -> str:
    """The snapshot as strict JSON, indented and in the order of its fields; an infinite float is {"_float": "inf"}."""
    text = json.dumps(_jsonable(snapshot), indent=2, ensure_ascii=False, allow_nan=False)
    # A path that is not UTF-8 reaches Python as lone surrogates, which a UTF-8 file can only hold escaped.
    return re.sub("[\ud800-\udfff]", lambda lone: f"\\u{ord(lone[0]):04x}", text) + "\n"


def from_json(text: str) -> dict[str, Any]:
    """The plain snapshot that `to_json` wrote.

    Raises:
      ValueError: the text is no such JSON.
    """
    snapshot = json.loads(text, object_hook=lambda d: float(d[_FLOAT]) if set(d) == {_FLOAT} else d)
    if not isinstance(snapshot, dict):
        raise ValueError("not a configuration")
    return _tuples(snapshot)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    return value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def fingerprint(snapshot: Mapping[str, Any], excluded: Sequence[str] = ()) -> str:
    """SHA-256, in hex, of the snapshot's canonical JSON without the `excluded` dotted fields and what is below them."""
    canonical = json.dumps(
        _jsonable(_without(snapshot, excluded)), sort_keys=True, separators=(",", ":"), ensure_ascii=True
    )
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _without(snapshot: Mapping[str, Any], excluded: Sequence[str], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without(value, excluded, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in snapshot.items()
        if f"{prefix}{key}" not in excluded
    }


def is_excluded(field: str, excluded: Sequence[str]) -> bool:
    """Whether a dotted field is one of the `excluded` ones or lies below one."""
    return any(field == name or field.startswith(f"{name}.") for name in excluded)


def leaves(snapshot: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted field, value) of everything in a snapshot, in order; an empty dict is a value."""
    for key, value in snapshot.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", dict(value) if isinstance(value, Mapping) else value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """The fields whose values (or their types: 1 is not 1.0) differ, in the order of `new`, then of `old`."""
    before, after = dict(leaves(old)), dict(leaves(new))
    found = []
    for field in dict.fromkeys([*after, *before]):
        left, right = before.get(field, ABSENT), after.get(field, ABSENT)
        filled = {} in (left, right) and any(other.startswith(f"{field}.") for other in (*before, *after))
        if repr(left) != repr(right) and not filled:
            found.append(Difference(field, left, right))
    return found
