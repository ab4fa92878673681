"""Low-rank adapters (Hu et al. 2021, LoRA) as PEFT keeps them: read, written, and added to a model's tensors as they are read.

An adapter directory holds adapter_config.json and adapter_model.safetensors. For a matrix W [out, in] it has A [r, in] and
B [out, r]; the adapted matrix is W + s B A, with s = alpha / r, or alpha / sqrt(r) where the file says so (Kalajdzievski 2023,
rsLoRA). For the token table PEFT keeps A [r, V] and B [D, r], whose product is turned; `modules_to_save` replaces tensors.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic
from aya_jax.interop.tensors import TensorInfo, TensorReader, opened

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Field → the values with which it changes nothing; what else it could mean is not done here.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "use_qalora": (False, None),
    "alora_invocation_tokens": (None, []),
    "target_parameters": (None, []),
}
_FACTOR = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.weight)?$")


@dataclasses.dataclass(frozen=True)
class Factors:
    """A change of one matrix [out, in]: scale * b @ a.

    Attributes:
      a: [r, in].
      b: [out, r].
      scale: s.
    """

    a: np.ndarray
    b: np.ndarray
    scale: float

    def added_to(self, matrix: np.ndarray) -> np.ndarray:
        """The adapted matrix, float32: whoever wants it narrower rounds it once."""
        return matrix.astype(np.float32) + self.scale * (self.b.astype(np.float32) @ self.a.astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter: what it adds to which of a model's Hugging Face tensors, and what it puts in their place.

    Attributes:
      path: where it was read from.
      factors: by the tensor's name.
      replaced: whole tensors by name.
      base: what the file says it was trained on; a directory, a name on the hub, or nothing.
    """

    path: Path
    factors: Mapping[str, Factors]
    replaced: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    base: str | None = None

    def check(self, entries: Mapping[str, TensorInfo]) -> None:
        """Raises UserError where it is not for a model of these tensors."""
        shapes = {name: (len(each.b), each.a.shape[1]) for name, each in self.factors.items()}
        for name, shape in (shapes | {name: array.shape for name, array in self.replaced.items()}).items():
            if name not in entries:
                raise UserError(
                    f"{self.path}: it adapts {name}, which the model does not have; it is for another model"
                )
            if entries[name].shape != shape:
                raise UserError(
                    f"{self.path}: {name} is {shape} there, and {entries[name].shape} in the model; it is for another"
                )


def is_adapter(path: Path) -> bool:
    """Whether a directory holds an adapter, and no model."""
    return (path / CONFIG).is_file() and not (path / "config.json").is_file()


def read_adapter(path: str | Path) -> Adapter:
    """Reads a directory as PEFT's `save_pretrained` writes it.

    Raises:
      UserError: it is damaged, no LoRA, or one with something that is not done here; names the field or the tensor.
    """
    path = Path(path)
    fields = _fields(path)
    if not (path / WEIGHTS).is_file():
        pickled = (path / "adapter_model.bin").is_file()
        raise UserError(
            f"{path / WEIGHTS}: missing"
            + (
                "; adapter_model.bin is a pickle, which is not read: save the adapter again with safetensors"
                if pickled
                else ""
            )
        )
    factors: dict[str, dict[str, np.ndarray]] = {}
    replaced = {}
    with opened(path / WEIGHTS) as file:
        for key in list(file.keys()):
            if not key.startswith(_PREFIX):
                raise UserError(f"{path / WEIGHTS}: tensor {key} does not begin with {_PREFIX!r}; PEFT's all do")
            name, array = key.removeprefix(_PREFIX), file.get_tensor(key)
            if found := _FACTOR.match(name):
                module, table, which = found[1], found[2], found[3]
                # The table's product is turned: (B A)^T = A^T B^T.
                which, array = ({"A": "B", "B": "A"}[which], array.T) if table else (which, array)
                factors.setdefault(f"{module}.weight", {})[which] = array
            elif ".lora_" in name:
                raise UserError(f"{path / WEIGHTS}: tensor {key} is of a kind of adapter that is not done here")
            else:
                # PEFT keeps an adapted token table's own weights beside, in case that it has grown.
                replaced[name.replace(".modules_to_save", "").replace(".base_layer", "")] = array
    return Adapter(
        path,
        {name: _paired(path, name, pair, fields) for name, pair in sorted(factors.items())},
        replaced,
        fields.get("base_model_name_or_path"),
    )


def write_adapter(folder: Path, adapter: Adapter) -> None:
    """Writes an adapter for PEFT's `from_pretrained`; every matrix may have a rank and a scale of its own."""
    tensors = {f"{_PREFIX}{name}": array for name, array in adapter.replaced.items()}
    ranks, alphas = {}, {}
    for name, each in adapter.factors.items():
        module = name.removesuffix(".weight")
        ranks[module], alphas[module] = len(each.a), each.scale * len(each.a)
        if module.endswith("embed_tokens"):
            tensors[f"{_PREFIX}{module}.lora_embedding_A"] = np.ascontiguousarray(each.b.T)
            tensors[f"{_PREFIX}{module}.lora_embedding_B"] = np.ascontiguousarray(each.a.T)
        else:
            tensors[f"{_PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(each.a)
            tensors[f"{_PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(each.b)
    rank, alpha = _most_common(ranks.values()), _most_common(alphas.values())
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(ranks),
        "rank_pattern": {re.escape(module): each for module, each in ranks.items() if each != rank},
        "alpha_pattern": {re.escape(module): each for module, each in alphas.items() if each != alpha},
        "modules_to_save": sorted(name.removesuffix(".weight") for name in adapter.replaced) or None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{WEIGHTS}"
    save_file(tensors, beside, metadata={"format": "pt"})
    beside.rename(folder / WEIGHTS)
    write_atomic(folder / CONFIG, json.dumps(fields, indent=2) + "\n")


class AdaptedReader:
    """A model's tensors with an adapter added, each as it is read; entries have the model's dtypes, what is adapted its own."""

    def __init__(self, reader: TensorReader, adapter: Adapter):
        """Raises UserError where the adapter is for another model."""
        adapter.check(reader.entries())
        self._reader, self._adapter = reader, adapter

    def entries(self) -> Mapping[str, TensorInfo]:
        """As `TensorReader.entries`."""
        return self._reader.entries()

    def read(self, name: str) -> np.ndarray:
        """As `TensorReader.read`."""
        if name in self._adapter.replaced:
            array = self._adapter.replaced[name]
        else:
            array = self._reader.read(name)
        return self._adapter.factors[name].added_to(array) if name in self._adapter.factors else array


def _fields(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    try:
        fields = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{file}: missing; an adapter directory has it") from None
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}") from error
    if not isinstance(fields, dict) or fields.get("peft_type") != "LORA":
        kind = fields.get("peft_type") if isinstance(fields, dict) else None
        raise UserError(f"{file}: peft_type is {kind!r}; LORA is what can be read")
    for name, plain in _PLAIN.items():
        if fields.get(name) not in plain:
            raise UserError(f"{file}: {name} is {fields[name]!r}, which is not done here; merge this adapter with PEFT")
    return fields


def _paired(path: Path, name: str, pair: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> Factors:
    if set(pair) != {"A", "B"}:
        raise UserError(
            f"{path / WEIGHTS}: of {name} there is {'A' if 'A' in pair else 'B'} alone, and both are needed"
        )
    a, b = pair["A"], pair["B"]
    if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1]:
        raise UserError(f"{path / WEIGHTS}: the factors of {name} are {a.shape} and {b.shape}, which do not multiply")
    module = name.removesuffix(".weight")
    rank = _by_pattern(fields.get("rank_pattern"), module, fields.get("r"))
    if rank != len(a):
        raise UserError(f"{path}: {name} has rank {len(a)}, and {CONFIG} says {rank}")
    alpha = _by_pattern(fields.get("alpha_pattern"), module, fields.get("lora_alpha"))
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise UserError(f"{path / CONFIG}: lora_alpha is {alpha!r}, and no number")
    return Factors(a, b, alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank))


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that the module's name, or its end, matches (PEFT's `get_pattern_key`)."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _most_common(values: Iterable[Any]) -> Any:
    values = list(values)
    return max(values, key=values.count, default=8)
