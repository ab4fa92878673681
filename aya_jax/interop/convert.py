"""`aya convert`: Hugging Face models in and out, tensor by tensor, written beside and renamed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.config.files import unwritable, write_atomic
from aya_jax.data import vocabulary
from aya_jax.data.manifest import VocabularyInfo
from aya_jax.interop.adapter import write_adapter
from aya_jax.interop.checkpoint_params import CheckpointWriter
from aya_jax.interop.config import ConvertConfig
from aya_jax.interop.hugging_face_config import write_config
from aya_jax.interop.model_dir import CONVERSION, ModelDir, common_dtype, find_model, parameters
from aya_jax.interop.progress import BytesBar
from aya_jax.interop.safetensors_writer import write_tensors
from aya_jax.interop.tensors import TensorInfo, TensorReader
from aya_jax.models.config import TransformerConfig
from aya_jax.training import checkpoint, tokenizer_files

_THREADS = 2  # one reads and turns tensors, one writes


def run(resolved: Resolved[ConvertConfig]) -> None:
    """Converts, and says what was written.

    Raises:
      UserError: the source is damaged or not to be had in the other form; the target is something else's; the disk is full.
    """
    console = Console()
    config = resolved.config
    say = functools.partial(console.print, highlight=False, soft_wrap=True)
    source = find_model(config.source, say, config.adapter)
    target = Path(config.target)
    inward = source.checkpoint is None
    with replacing(target, Path(config.source)) as folder, BytesBar(console, "converting") as bar:
        if config.adapter_alone:
            model = to_adapter(source, folder)
        elif inward:
            model = to_ours(source, folder, config, bar)
            write_atomic(folder / "config.gin", resolved.text)
        else:
            model = to_hugging_face(source, folder, config, bar)
        record = {
            "source": str(Path(config.source).absolute()),
            "adapter": source.adapter and str(source.adapter.path.absolute()),
            "kind": "hugging_face" if inward else "checkpoint",
            "step": source.step,
            "dtype": config.dtype,
            "vocab_size": {"source": source.config.vocab_size, "target": model.vocab_size},
        }
        write_atomic(folder / CONVERSION, json.dumps(record, indent=1) + "\n")
    what = "a model directory of aya_jax" if inward else "a Hugging Face model"
    say(f"{target} is {'an adapter for PEFT' if config.adapter_alone else what}.")
    if inward and not config.adapter_alone:
        say(f"To train from it: aya train RUN.gin {target}/model.gin --gin.MODEL_DIR={target} ...")


def to_ours(
    source: ModelDir, folder: Path, config: ConvertConfig, tell: Callable[[int, int], None]
) -> TransformerConfig:
    """Writes a Hugging Face model as checkpoint 0 of `folder`; returns its shape."""
    reader = source.reader()
    rows = -(-source.config.vocab_size // config.vocab_multiple) * config.vocab_multiple
    model = dataclasses.replace(source.config, vocab_size=rows)
    dtype = _dtype(config.dtype) or common_dtype(reader)
    path = folder / checkpoint.FOLDER / "0"
    plan = list(parameters(model))
    writer = CheckpointWriter(path / "params", {rule.path: TensorInfo(shape, dtype) for rule, shape in plan})
    total = sum(TensorInfo(shape, dtype).nbytes for _, shape in plan)

    def convert(rule: Any, layer: int | None, shape: tuple[int, ...]) -> int:
        array = reader.read(rule.name.format(layer)).astype(dtype, copy=False)
        if rule.path.endswith("/table") and len(array) < rows:
            array = np.concatenate([array, np.zeros((rows - len(array), array.shape[1]), dtype)])
        writer.write(rule.path, layer, rule.to_ours(array, shape))
        return array.nbytes

    jobs = (
        (rule, layer, shape[1:] if rule.stacked else shape)
        for rule, shape in plan
        for layer in (range(model.num_layers) if rule.stacked else (None,))
    )
    for size in _in_threads(convert, jobs):
        tell(size, total)
    writer.finish()
    _write_meta(path, model, vocabulary.load(source.tokenizer) if source.tokenizer else None)
    known = {f"params/{name}": found for name, found in writer.checksums.items()}
    write_atomic(path / checkpoint.CHECKSUMS, json.dumps(checkpoint.checksums(path, known), indent=1))
    _copy_tokenizer(source.tokenizer, folder / tokenizer_files.FOLDER)
    _copy_companions(source.path, folder / tokenizer_files.FOLDER)
    write_atomic(folder / "model.gin", _model_gin(model, source))
    return model


def to_adapter(source: ModelDir, folder: Path) -> TransformerConfig:
    """Writes the adapter of a model into `folder` as PEFT's `from_pretrained` reads it; returns the model's shape.

    Raises:
      UserError: the model has none.
    """
    if source.adapter is None:
        raise UserError(f"{source.path}: a model without an adapter; leave out ConvertConfig.adapter_alone")
    write_adapter(folder, source.adapter)
    return source.config


def to_hugging_face(
    source: ModelDir, folder: Path, config: ConvertConfig, tell: Callable[[int, int], None]
) -> TransformerConfig:
    """Writes one of our checkpoints as a Hugging Face model into `folder`; returns its shape."""
    reader = source.reader()
    dtype = _dtype(config.dtype) or common_dtype(reader)
    model = hugging_face_shape(source)
    rows = model.vocab_size
    entries = {
        name: TensorInfo((rows, *info.shape[1:]) if _is_table(name) else info.shape, dtype)
        for name, info in reader.entries().items()
    }
    total = sum(info.nbytes for info in entries.values())

    def read(name: str) -> np.ndarray:
        return _of_rows(reader, name, rows).astype(dtype, copy=False)

    with _Ahead(read, entries) as ahead:
        write_tensors(
            folder, entries, ahead.take, shard_bytes=int(config.shard_gb * 1e9), tell=lambda size: tell(size, total)
        )
    write_small_files(folder, source, model, dtype.name)
    return model


def hugging_face_shape(source: ModelDir) -> TransformerConfig:
    """A model's shape as it was on the hub, without rows of the token table that `vocab_multiple` added."""
    rows = _original(source).get("vocab_size", source.config.vocab_size)
    return dataclasses.replace(source.config, vocab_size=min(rows, source.config.vocab_size))


def write_small_files(folder: Path, source: ModelDir, model: TransformerConfig, dtype: str) -> None:
    """Writes what lies beside the weights of a Hugging Face model: config.json, the tokenizer and its small files.

    Args:
      folder: to write into.
      source: whose files they are.
      model: the shape of the weights.
      dtype: of the weights.
    """
    original = _original(source)
    if "eos_token_id" not in original and source.tokenizer not in (None, "bytes"):
        known = vocabulary.load(source.tokenizer)
        original |= {"bos_token_id": known.bos_id, "eos_token_id": known.eos_id, "pad_token_id": known.pad_id}
    fields = write_config(model, original, dtype)
    write_atomic(folder / "config.json", json.dumps(fields, indent=2) + "\n")
    _copy_tokenizer(source.tokenizer, folder)
    if source.home:
        for name, content in tokenizer_files.companions(source.home).items():
            if name != "config.json":
                write_atomic(folder / name, content)


def _original(source: ModelDir) -> dict[str, Any]:
    """The config.json that a model came with; nothing where it came with none."""
    small = tokenizer_files.companions(source.home) if source.home else {}
    return json.loads(small.get("config.json", b"{}"))


@contextlib.contextmanager
def replacing(target: Path, source: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when all went well.

    Raises:
      UserError: `target` holds something that no conversion wrote, or is the source; the disk cannot be written.
    """
    if target.resolve() == source.resolve() or target.resolve() in source.resolve().parents:
        raise UserError(f"TARGET {target} is the source, or holds it; choose another directory")
    if target.exists() and not (target / CONVERSION).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"TARGET {target} is there, and no conversion wrote it; choose another directory, or remove it")
    beside = target.with_name(f".{target.name}.converting")
    try:
        shutil.rmtree(beside, ignore_errors=True)  # of a conversion that was killed
        beside.mkdir(parents=True)
        yield beside
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _in_threads(function: Callable[..., int], jobs: Iterable[tuple]) -> Iterator[int]:
    """Results of the jobs, in order; no more of them at a time than there are threads, so memory is bounded."""
    with ThreadPoolExecutor(_THREADS) as pool:
        running: deque[Future[int]] = deque()
        try:
            for job in jobs:
                running.append(pool.submit(function, *job))
                if len(running) > _THREADS:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


class _Ahead:
    """Reads the next tensors while one is written."""

    def __init__(self, read: Callable[[str], np.ndarray], names: Iterable[str]):
        self._read, self._names = read, deque(names)
        self._pool, self._running = ThreadPoolExecutor(_THREADS), deque()

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, name: str) -> np.ndarray:
        """The next tensor, which is asked for in the order of the names."""
        while self._names and len(self._running) <= _THREADS:
            self._running.append((self._names[0], self._pool.submit(self._read, self._names.popleft())))
        found, future = self._running.popleft()
        if found != name:
            raise AssertionError(f"{name} was asked for, and {found} is next")
        return future.result()


def _is_table(name: str) -> bool:
    return name in ("model.embed_tokens.weight", "lm_head.weight")


def _of_rows(reader: TensorReader, name: str, rows: int) -> np.ndarray:
    array = reader.read(name)
    return array[:rows] if _is_table(name) else array


def _dtype(name: str | None) -> np.dtype | None:
    return None if name is None else np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _write_meta(path: Path, model: TransformerConfig, known: vocabulary.Vocabulary | None) -> None:
    info = None
    if known is not None:
        spec = "bytes" if known.spec == "bytes" else "tokenizer.json"
        info = dataclasses.asdict(VocabularyInfo.of(known, spec))
    meta = {"step": 0, "model": dataclasses.asdict(model), "vocabulary": info}
    checkpoint.write_meta(path, meta)


def _copy_tokenizer(spec: str | None, folder: Path) -> None:
    if spec in (None, "bytes"):
        return
    path = Path(spec)
    files = [path] if path.is_file() else [path / name for name in ("tokenizer.json", "tokenizer.model")]
    for file in files:
        if file.is_file():
            write_atomic(folder / file.name, file.read_bytes())


def _copy_companions(source: Path, folder: Path) -> None:
    for name, content in tokenizer_files.companions(source).items():
        write_atomic(folder / name, content)


def _model_gin(model: TransformerConfig, source: ModelDir) -> str:
    lines = [f"# The model converted from {source.name}.", ""]
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    for name, value in dataclasses.asdict(model).items():
        if value != defaults[name]:
            lines.append(f"TransformerConfig.{name} = {value!r}")
    return "\n".join(lines) + "\n"
