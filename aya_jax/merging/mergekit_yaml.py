"""mergekit's configuration files, taken as they are or refused by field.

Numbers mean what they mean there (version 0.1.5): a list is a gradient over layers, `filter` a part of a tensor's name, and a
model's own parameters come before those of all. What a file may ask for and is not done here is refused with its line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from aya_jax.config import UserError
from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.merging.methods import METHODS, Method
from aya_jax.merging.recipe import Recipe
from aya_jax.merging.sources import find_source
from aya_jax.merging.values import Value

_NUMBERS = {"weight": "weights", "density": "densities", "gamma": "gammas", "epsilon": "epsilons"}
_DEFAULTS = {"density": 1.0, "gamma": 0.01, "epsilon": 0.15}
_OF_ALL = ("t", "lambda", "normalize", "normalize_weights", "rescale", *_NUMBERS)
_NO_EFFECT = {
    "int8_mask": (True, False),
    "filter_wise": (False,),
    "nuslerp_flatten": (True,),
    "nuslerp_row_wise": (False,),
}
_FIELDS = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
)
_DTYPES = ("float32", "bfloat16", "float16")


def read_recipe(file: Path, seed: int) -> Recipe:
    """The recipe that a file of mergekit's gives.

    Args:
      file: YAML.
      seed: of random masks, which mergekit takes on its command line.

    Raises:
      UserError: the file cannot be read, or it asks for what is not done here; names the line and the field.
    """
    document = _Document(file)
    fields = document.mapping((), _FIELDS)
    name = _method(document, fields)
    about, inputs = METHODS[name], _inputs(document, fields)
    base = fields.get("base_model")
    if base is None and about.base in ("required", "first"):
        raise document.refuse((), f"base_model is missing, which {name} needs")
    listed = [each.model for each in inputs]
    if about.base == "first" and base not in listed:
        raise document.refuse(("base_model",), f"{base!r} is not one of the models: {name} goes from it to the other")
    if about.base == "none" and base is not None and base not in listed:
        raise document.refuse(
            ("base_model",), f"{name} has no base; leave it out, or list it among the models with its weight"
        )
    takes_base = about.base != "none" and base is not None
    beside = [each for each in inputs if not (takes_base and each.model == base)]
    if len(beside) < about.fewest or (about.most is not None and len(beside) > about.most):
        raise document.refuse((), f"{len(beside)} models beside the base: {name} takes {_count(about)}")
    shared = document.mapping(("parameters",), (*_OF_ALL, *_NO_EFFECT))
    _check_no_effect(document, ("parameters",), shared)
    return Recipe(
        method=name,
        base=base if takes_base else None,
        models=tuple(each.model for each in beside),
        owner=base or listed[0],
        normalize=_flag(
            document, shared, "normalize_weights" if name == "multislerp" else "normalize", about.normalize
        ),
        rescale=("l1" if about.rescale != "none" else "none")
        if "rescale" not in shared
        else _rescale(document, shared),
        t=_levels(document, "t", [(("parameters",), shared)], 0.5 if about.base != "first" else None, name),
        scale=_levels(document, "lambda", [(("parameters",), shared)], 1.0, name),
        seed=seed,
        dtype=_dtype(document, fields),
        tokenizer=_tokenizer(document, fields),
        chat_template=_template(document, fields),
        **_numbers(document, name, beside, shared),
    )


@dataclasses.dataclass(frozen=True)
class _Input:
    """A model of the file: as it is named, its own parameters, and where they stand."""

    model: str
    parameters: Mapping[str, Any]
    path: tuple


class _Document:
    """A YAML file's content, and the line of everything in it."""

    def __init__(self, file: Path):
        self._file, self._lines = file, {}
        try:
            node = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{file}: cannot be read ({error}); name a file of mergekit's, or one that ends in .gin"
            ) from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            raise UserError(f"{file}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error
        self._content = self._plain(node, ()) if node is not None else None
        if not isinstance(self._content, dict):
            raise UserError(
                f"{file}: not a configuration of mergekit's: expected fields such as merge_method and models"
            )

    def mapping(self, path: tuple, known: tuple[str, ...]) -> dict[str, Any]:
        """The fields at a path, none where nothing is there; refuses those that are not known."""
        content = self.at(path) or {}
        if not isinstance(content, dict):
            raise self.refuse(path, f"{content!r}: expected fields ({', '.join(known)})")
        for name in content:
            if name not in known:
                near = did_you_mean(near_names(str(name), known))
                raise self.refuse((*path, name), f"this is not done here{near or '; there are ' + ', '.join(known)}")
        return content

    def at(self, path: tuple) -> Any:
        """What stands at a path; None where nothing does."""
        content = self._content
        for part in path:
            present = (
                part in content if isinstance(content, dict) else isinstance(content, list) and part < len(content)
            )
            if not present:
                return None
            content = content[part]
        return content

    def refuse(self, path: tuple, reason: str) -> UserError:
        """The error that names a path and its line."""
        line = self._lines.get(path)
        shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        return UserError(f"{self._file}{f':{line}' if path and line else ''}: {f'{shown}: ' if shown else ''}{reason}")

    def _plain(self, node: yaml.Node, path: tuple) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            content = {}
            for key, value in node.value:
                self._lines[(*path, key.value)] = key.start_mark.line + 1
                content[key.value] = self._plain(value, (*path, key.value))
            return content
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(each, (*path, number)) for number, each in enumerate(node.value)]
        return yaml.SafeLoader("").construct_object(node)


def _method(document: _Document, fields: Mapping[str, Any]) -> str:
    name = fields.get("merge_method")
    if name is None:
        raise document.refuse((), "merge_method is missing")
    if name not in METHODS:
        near = did_you_mean(near_names(str(name), METHODS))
        raise document.refuse(
            ("merge_method",), f"{name!r} is not done here{near or '; there are ' + ', '.join(METHODS)}"
        )
    return name


def _inputs(document: _Document, fields: Mapping[str, Any]) -> list[_Input]:
    if ("models" in fields) == ("slices" in fields):
        raise document.refuse((), "expected one of models and slices")
    path: tuple = ("models",)
    if "slices" in fields:
        if not isinstance(fields["slices"], list) or len(fields["slices"]) != 1:
            raise document.refuse(
                ("slices",), "more than one slice would stack layers, which is not done here; merge whole models"
            )
        path = ("slices", 0, "sources")
        document.mapping(("slices", 0), ("sources",))
    listed = document.at(path)
    if not isinstance(listed, list) or not listed:
        raise document.refuse(path, "expected a list of models")
    found = []
    for number in range(len(listed)):
        each = document.mapping(
            (*path, number), ("model", "parameters", *(("layer_range",) if "slices" in fields else ()))
        )
        if not isinstance(each.get("model"), str):
            raise document.refuse((*path, number), f"model is {each.get('model')!r}: expected a directory")
        if "layer_range" in each:
            _check_range(document, (*path, number, "layer_range"), each)
        own = (*path, number, "parameters")
        parameters = document.mapping(own, (*_NUMBERS, *_NO_EFFECT))
        _check_no_effect(document, own, parameters)
        found.append(_Input(each["model"], parameters, own))
    return found


def _check_range(document: _Document, path: tuple, entry: Mapping[str, Any]) -> None:
    """Refuses a part of a model's layers."""
    layers = find_source(entry["model"], lambda text: None).config.num_layers
    if entry["layer_range"] != [0, layers]:
        raise document.refuse(path, f"{entry['layer_range']}: only all layers, [0, {layers}], are merged here")


def _numbers(
    document: _Document, method: str, beside: list[_Input], shared: Mapping[str, Any]
) -> dict[str, tuple[Value, ...]]:
    about = METHODS[method]
    weighted = method not in ("slerp", "model_stock")
    used = {"weight": weighted, "density": about.sparsifier is not None}
    used |= {"gamma": about.sparsifier == "outliers", "epsilon": about.sparsifier == "ranked"}
    found = {}
    for name, field in _NUMBERS.items():
        if used[name]:
            default = 1.0 if method == "karcher" and name == "weight" else _DEFAULTS.get(name)
            levels = [[(each.path, each.parameters), (("parameters",), shared)] for each in beside]
            found[field] = tuple(_levels(document, name, level, default, method) for level in levels)
    return found


def _levels(
    document: _Document, name: str, levels: list[tuple[tuple, Mapping[str, Any]]], default: float | None, method: str
) -> Value:
    """A parameter's value: the first level that has it; where that has rules, what they leave open is of the next."""
    rules: list[tuple[str, float | tuple[float, ...]]] = []
    for path, parameters in levels:
        if name not in parameters:
            continue
        rules += _rules((*path, name), parameters[name], document)
        if rules[-1][0] == "*":
            break
    else:
        if default is None:
            raise document.refuse(
                levels[0][0] if rules else (), f"{name} is missing for some tensors, and {method} needs it"
            )
        rules.append(("*", default))
    return rules[0][1] if rules[0][0] == "*" else tuple(rules)


def _rules(path: tuple, written: Any, document: _Document) -> Iterator[tuple[str, float | tuple[float, ...]]]:
    entries = written if isinstance(written, list) and written and isinstance(written[0], dict) else [written]
    for number, entry in enumerate(entries):
        own = (*path, number) if entries is written else path
        if not isinstance(entry, dict):
            yield "*", _gradient(own, entry, document)
            return
        document.mapping(own, ("filter", "value"))
        pattern = entry.get("filter")
        yield "*" if pattern is None else str(pattern), _gradient((*own, "value"), entry.get("value"), document)
        if pattern in (None, "*"):
            return


def _gradient(path: tuple, written: Any, document: _Document) -> float | tuple[float, ...]:
    listed = written if isinstance(written, list) else [written]
    try:
        found = tuple(float(number) for number in listed if not isinstance(number, bool))
    except (TypeError, ValueError):
        found = ()
    if not found or len(found) != len(listed):
        raise document.refuse(path, f"{written!r}: expected a number, a list of numbers, or rules of filter and value")
    return found if isinstance(written, list) else found[0]


def _flag(document: _Document, shared: Mapping[str, Any], name: str, default: bool) -> bool:
    found = shared.get(name, default)
    if not isinstance(found, bool):
        raise document.refuse(("parameters", name), f"{found!r}: expected true or false")
    return found


def _rescale(document: _Document, shared: Mapping[str, Any]) -> str:
    return "l1" if _flag(document, shared, "rescale", False) else "none"


def _check_no_effect(document: _Document, path: tuple, parameters: Mapping[str, Any]) -> None:
    for name, allowed in _NO_EFFECT.items():
        if name in parameters and parameters[name] not in allowed:
            raise document.refuse(
                (*path, name), f"{parameters[name]!r} is not done here; expected {allowed[0]}, or nothing"
            )


def _dtype(document: _Document, fields: Mapping[str, Any]) -> str | None:
    """Of the result: `dtype` is also what mergekit computes in, where float32 is used here."""
    for name in ("out_dtype", "dtype"):
        if fields.get(name) is not None:
            if fields[name] not in _DTYPES:
                raise document.refuse((name,), f"{fields[name]!r}: expected one of {', '.join(_DTYPES)}")
            return fields[name]
    return None


def _tokenizer(document: _Document, fields: Mapping[str, Any]) -> str | None:
    if fields.get("tokenizer") is not None:
        return document.mapping(("tokenizer",), ("source",)).get("source")
    return fields.get("tokenizer_source")


def _template(document: _Document, fields: Mapping[str, Any]) -> str | None:
    template = fields.get("chat_template")
    if template is None or template == "auto" or "{" in str(template):
        return template
    raise document.refuse(
        ("chat_template",), f"{template!r}: expected auto, or a Jinja template; named ones are not kept here"
    )


def _count(about: Method) -> str:
    return str(about.fewest) if about.most == about.fewest else f"at least {about.fewest}"
