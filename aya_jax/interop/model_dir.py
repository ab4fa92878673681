"""A directory that holds a model, ours or Hugging Face's: what it is, and its weights on the devices."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from aya_jax.config import UserError, resolve
from aya_jax.data import vocabulary
from aya_jax.data.manifest import VocabularyInfo
from aya_jax.interop.adapter import AdaptedReader, Adapter, is_adapter, read_adapter
from aya_jax.interop.architectures import Rule, rules
from aya_jax.interop.checkpoint_params import CheckpointReader, open_array
from aya_jax.interop.hugging_face_config import read_config
from aya_jax.interop.tensors import SafetensorsReader, TensorReader
from aya_jax.interop.trained_adapter import combined, read_trained
from aya_jax.models.config import TransformerConfig
from aya_jax.models.reward import HEAD
from aya_jax.models.transformer import Transformer
from aya_jax.training import checkpoint, tokenizer_files
from aya_jax.training.config import TrainConfig

CONVERSION = "conversion.json"
"""Says what a directory was converted from; a directory without it is never replaced."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_UNUSED = ("rotary_emb.inv_freq", ".attn.bias", ".masked_bias")  # buffers that older files hold


@dataclasses.dataclass(frozen=True)
class ModelDir:
    """A model on disk.

    Attributes:
      path: the checkpoint, or the Hugging Face directory.
      kind: which of the two.
      config: its shape.
      tokenizer: what `data.vocabulary.load` and `ChatTokenizer.open` take; None where there is none.
      home: where the small files lie that came with the model (`tokenizer_files.COMPANIONS`); None: nowhere.
      step: of a checkpoint.
      name: for people.
      adapter: what is added to its weights.
      head: "reward" where it gives rewards and not tokens.
      checkpoint: of ours, that it is from: of its weights, or of an adapter that a run has trained over them.
    """

    path: Path
    kind: Literal["checkpoint", "hugging_face"]
    config: TransformerConfig
    tokenizer: str | None
    home: Path | None = None
    step: int | None = None
    name: str = ""
    adapter: Adapter | None = None
    head: str | None = None
    checkpoint: Path | None = None

    @property
    def whole(self) -> Path:
        """What `find_model` finds all of it by, adapter included."""
        return (self.adapter.path if self.adapter is not None else self.path).absolute()

    def reader(self) -> TensorReader:
        """Its tensors by their Hugging Face names, with the adapter added.

        Raises:
          UserError: they are damaged, missing, or of other shapes than its configuration says; the adapter is for another.
        """
        if self.head is not None:
            raise UserError(
                f"{self.path}: a {self.head} model, which has no form of Hugging Face's here; name a model of tokens"
            )
        return self.body()

    def body(self) -> TensorReader:
        """As `reader`, without the head that the model may have."""
        reader: TensorReader
        if self.kind == "checkpoint":
            reader = CheckpointReader(self.path, self.config)
        else:
            reader = SafetensorsReader(self.path)
            _check_tensors(self.path, reader, self.config)
        return AdaptedReader(reader, self.adapter) if self.adapter else reader


def find_model(path: str | Path, warn: Callable[[str], None], adapter: str | Path | None = None) -> ModelDir:
    """What a directory holds: a run directory, one of its checkpoints, a Hugging Face directory, or an adapter of a model.

    Args:
      path: what the user named; an adapter's directory stands for the model that it names, where that is a directory.
      warn: is told of damaged checkpoints that are passed over.
      adapter: a directory of PEFT's, to be added to the model.

    Raises:
      UserError: it holds no model, or the adapter is damaged.
    """
    path = Path(path)
    if is_adapter(path):
        if adapter is not None:
            raise UserError(f"{path} is an adapter, and {adapter} another; name the model and one adapter")
        found = read_adapter(path)
        if not found.base or not Path(found.base).is_dir():
            raise UserError(
                f"{path}: an adapter of {found.base!r}, which is no directory here; name the model, and bind ADAPTER = {path}"
            )
        return dataclasses.replace(find_model(found.base, warn), adapter=found, name=path.absolute().name)
    if adapter is not None:
        return dataclasses.replace(find_model(path, warn), adapter=read_adapter(adapter))
    if (path / checkpoint.FOLDER).is_dir() or (path / "params").is_dir():
        return _found_checkpoint(path, warn)
    file = path / "config.json"
    if not file.is_file():
        raise UserError(
            f"{path}: no model is there: neither a run directory with checkpoints/, nor a checkpoint, nor the config.json and "
            "safetensors of a Hugging Face model"
        )
    try:
        fields = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file}: not JSON: {error}") from error
    tokenizer = str(path) if any((path / name).is_file() for name in _TOKENIZER_FILES) else None
    return ModelDir(path, "hugging_face", read_config(fields, str(file)), tokenizer, path, name=path.absolute().name)


def load_params(model: ModelDir, like: Any) -> Any:
    """The weights on the devices, a layer at a time in the host's memory.

    Args:
      model: from `find_model`.
      like: the tree of `jax.ShapeDtypeStruct`s with the shardings and types to load into.

    Raises:
      UserError: the weights are damaged, or of another model.
    """
    if model.head is not None and HEAD not in like:
        raise UserError(f"{model.path}: a {model.head} model, where one of tokens is needed")
    if model.kind == "checkpoint" and model.adapter is None:
        return checkpoint.load_params(model.path, like)
    reader = model.body()
    by_path = {rule.path: rule for rule in rules(model.config)}

    def load(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.startswith(f"{HEAD}/") and model.checkpoint is not None:
            head = open_array(model.checkpoint / "params", name).read().result()
            return _put(head.astype(leaf.dtype), leaf.sharding)
        if name not in by_path or not _fits(reader, by_path[name], leaf.shape):
            raise UserError(f"{model.path}: these weights are of another model: {name} is not {leaf.shape} there")
        return _load(reader, by_path[name], leaf)

    return jax.tree_util.tree_map_with_path(load, like)


def _load(reader: TensorReader, rule: Rule, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    if not rule.stacked:
        return _put(rule.to_ours(reader.read(rule.name), leaf.shape).astype(leaf.dtype), leaf.sharding)
    inner = None
    if isinstance(leaf.sharding, NamedSharding):
        inner = NamedSharding(leaf.sharding.mesh, PartitionSpec(*leaf.sharding.spec[1:]))
    stacked = jax.jit(lambda: jax.numpy.zeros(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)()
    place = jax.jit(lambda all_, layer, at: all_.at[at].set(layer), donate_argnums=0, out_shardings=leaf.sharding)
    for layer in range(leaf.shape[0]):
        array = rule.to_ours(reader.read(rule.name.format(layer)), leaf.shape[1:]).astype(leaf.dtype)
        stacked = place(stacked, _put(array, inner), layer)
    return stacked


def _put(array: np.ndarray, sharding: Any) -> jax.Array:
    if sharding is None:
        return jax.numpy.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _fits(reader: TensorReader, rule: Rule, shape: tuple[int, ...]) -> bool:
    of_layer = shape[1:] if rule.stacked else shape
    info = reader.entries().get(rule.name.format(0))
    return info is not None and info.shape == rule.their_shape(of_layer)


def weights_digest(found: ModelDir) -> str:
    """SHA-256 of the checksums of a model's files of weights, and of its adapter's."""
    folders = [found.path, *([found.adapter.path] if found.adapter else [])]
    weights = [
        (name, checksum)
        for folder in folders
        for name, checksum in sorted(checkpoint.checksums(folder).items())
        if name.startswith(("params/", "adapter_config")) or name.endswith(".safetensors")
    ]
    return hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()


def parameters(config: TransformerConfig) -> Iterator[tuple[Rule, tuple[int, ...]]]:
    """Every parameter of a model: its rule and its (stacked) shape."""
    shapes = jax.tree_util.tree_leaves_with_path(Transformer(config).shapes())
    by_path = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in shapes}
    for rule in rules(config):
        yield rule, by_path[rule.path]


def expected_tensors(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors of a Hugging Face model of this shape."""
    return {
        rule.name.format(layer): rule.their_shape(shape[1:] if rule.stacked else shape)
        for rule, shape in parameters(config)
        for layer in (range(config.num_layers) if rule.stacked else (0,))
    }


def _check_tensors(path: Path, reader: TensorReader, config: TransformerConfig) -> None:
    entries, expected = reader.entries(), expected_tensors(config)
    for name, shape in expected.items():
        if name not in entries:
            raise UserError(f"{path}: tensor {name} is missing; config.json says that the model has it")
        if entries[name].shape != shape:
            raise UserError(f"{path}: tensor {name} is {entries[name].shape}, and by config.json it is {shape}")
    tied = {"lm_head.weight"} if config.tie_embeddings else set()
    more = [name for name in entries if name not in expected and name not in tied and not name.endswith(_UNUSED)]
    if more:
        raise UserError(f"{path}: tensor {more[0]} has no place in the model that config.json describes")


def common_dtype(reader: TensorReader) -> np.dtype:
    """The type that most bytes of a model are of."""
    sizes: dict[np.dtype, int] = {}
    for info in reader.entries().values():
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
    return max(sizes, key=lambda dtype: sizes[dtype])


# Our own checkpoints -------------------------------------------------------------------------------------------------


def _found_checkpoint(path: Path, warn: Callable[[str], None]) -> ModelDir:
    found = checkpoint.locate(path, warn)
    meta = checkpoint.read_meta(found)
    run_dir = found.parents[1]
    config = TransformerConfig(**meta["model"]) if "model" in meta else training_config(found).model
    home = run_dir / tokenizer_files.FOLDER
    if "adapter" in meta:
        return _found_adapter(found, meta, warn)
    return ModelDir(
        found,
        "checkpoint",
        config,
        _tokenizer(run_dir, found, meta),
        home if home.is_dir() else None,
        int(meta["step"]),
        run_dir.absolute().name,
        head=meta.get("head"),
        checkpoint=found,
    )


def _found_adapter(found: Path, meta: dict[str, Any], warn: Callable[[str], None]) -> ModelDir:
    """A checkpoint of an adapter: the model that it was trained on, with it."""
    about, run_dir = meta["adapter"], found.parents[1]
    if not Path(about["base"]).exists():
        raise UserError(f"{found}: an adapter of {about['base']}, which is not there; put that model back")
    base = find_model(about["base"], warn)
    if weights_digest(base) != about["base_digest"]:
        raise UserError(
            f"{found}: an adapter of {about['base']}, where other weights lie now; put the earlier ones back"
        )
    adapter = read_trained(found, base.config, about)
    return dataclasses.replace(
        base,
        adapter=adapter if base.adapter is None else combined(base.adapter, adapter),
        tokenizer=_tokenizer(run_dir, found, meta),
        step=int(meta["step"]),
        name=run_dir.absolute().name,
        head=meta.get("head"),
        checkpoint=found,
    )


def trained_with(found: ModelDir) -> TrainConfig | None:
    """The configuration of the run that a model is from; None for a lone checkpoint, and for a model from elsewhere."""
    if found.checkpoint is None:
        return None
    run_dir = found.checkpoint.parents[1]
    if (run_dir / CONVERSION).is_file() or not (run_dir / "config.gin").is_file():
        return None
    return training_config(found.checkpoint)


def vocabulary_info(found: ModelDir) -> VocabularyInfo:
    """The tokenizer that a model was trained with.

    Raises:
      UserError: there is none beside the weights, and nothing that says which it was.
    """
    recorded = checkpoint.read_meta(found.checkpoint).get("vocabulary") if found.checkpoint else None
    if recorded:
        return VocabularyInfo(**recorded)
    if found.tokenizer is None:
        raise UserError(f"{found.path}: there is no tokenizer beside the weights; put its tokenizer.json there")
    return VocabularyInfo.of(vocabulary.load(found.tokenizer), Path(found.tokenizer).name)


def training_config(found: Path) -> TrainConfig:
    """The configuration of the run that a checkpoint is from.

    Raises:
      UserError: the run directory holds none.
    """
    file = found.parents[1] / "config.gin"
    if not file.is_file():
        raise UserError(f"{file}: missing; the checkpoint says no model, and the run around it holds no configuration.")
    return resolve(TrainConfig, files=[file]).config


def _tokenizer(run_dir: Path, found: Path, meta: dict[str, Any]) -> str | None:
    own = run_dir / tokenizer_files.FOLDER
    if any((own / name).is_file() for name in _TOKENIZER_FILES):
        return str(own)
    spec = (meta.get("vocabulary") or {}).get("spec")
    if spec is None or spec == "bytes":
        return spec
    # Runs of before: the stores that they were trained on have a copy.
    beside = Path(training_config(found).data.store_dir) / "vocabulary"
    return str(beside) if beside.is_dir() else None
