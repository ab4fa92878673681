"""`aya merge`: one model from several, a tensor at a time, written beside and renamed.

A merge that was killed goes on: the files of weights that are whole stay in a folder beside the target, with the recipe and the
digests of all models, and are made again only where those have changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.config.files import unwritable, write_atomic
from aya_jax.interop.convert import write_small_files
from aya_jax.interop.progress import BytesBar
from aya_jax.interop.safetensors_writer import shard_files, write_tensors
from aya_jax.merging import tensor
from aya_jax.merging.card import MERGE, model_card, record
from aya_jax.merging.config import MergeConfig
from aya_jax.merging.mergekit_yaml import read_recipe
from aya_jax.merging.pages import FileBlocks
from aya_jax.merging.preflight import Plan, check
from aya_jax.merging.recipe import Recipe, from_config
from aya_jax.merging.stream import Ahead
from aya_jax.parallel.compilation import use_compilation_cache
from aya_jax.parallel.mesh import make_mesh

_LOCK = "lock"
_BY_CHANCE = ("random", "ranked")  # sparsifiers


def run(resolved: Resolved[MergeConfig]) -> None:
    """Merges, and says what was written.

    Raises:
      UserError: the models do not fit together, one is damaged, the target is something else's, or the disk is full.
    """
    console, config = Console(), resolved.config
    say = functools.partial(console.print, highlight=False, soft_wrap=True, markup=False)
    target = Path(config.target)
    use_compilation_cache(config.compilation_cache)
    recipe = read_recipe(Path(config.recipe[0]), config.seed) if config.recipe else from_config(config)
    refuse_target(target, recipe)
    plan = check(recipe, say, look=config.scan)
    for note in plan.notes:
        say(f"Note: {note}.")
    start = time.perf_counter()
    with working_folder(target, record(plan, config.shard_gb)) as folder, BytesBar(console, "merging") as bar:
        kept = write_weights(plan, folder, make_mesh(config.mesh), int(config.shard_gb * 1e9), bar)
        write_beside(plan, folder)
    seconds, size = time.perf_counter() - start, sum(info.nbytes for info in plan.entries().values())
    if kept:
        say(f"{kept} files of weights were there from a merge that was stopped.")
    say(
        f"{target} is a Hugging Face model: {size / 1e9:.3g} GB from {len(plan.sources)} models in {seconds:.1f} s "
        f"({size / 1e9 / seconds:.2g} GB/s)."
    )


def write_weights(plan: Plan, folder: Path, mesh: Mesh, shard_bytes: int, bar: BytesBar) -> int:
    """Writes the merged tensors into `folder`; returns how many files were there already."""
    entries = plan.entries()
    total = sum(info.nbytes for info in entries.values())
    files = shard_files(entries, shard_bytes)
    there = [name for name in files if (folder / name).is_file()]
    names = [name for file, inside in files.items() if file not in there for name in inside]
    with Ahead(lambda name: merged(plan, name, folder, mesh), names) as ahead:
        tell = functools.partial(_tell, bar, total)
        for file in there:
            tell(sum(entries[name].nbytes for name in files[file]))
        write_tensors(folder, entries, ahead.take, shard_bytes=shard_bytes, tell=tell, resume=True)
    return len(there)


def merged(plan: Plan, name: str, folder: Path, mesh: Mesh) -> Iterator[np.ndarray]:
    """A tensor of the result, in flat pieces.

    Raises:
      UserError: the method has no result for it.
    """
    arrays = plan.read(name, folder)
    by_rows = plan.settings[name].about.sparsifier == "ranked"
    blocks = [FileBlocks(array, mesh if mesh.size > 1 else None, by_rows=by_rows) for array in arrays]
    left = math.prod(arrays[0].shape)
    for block in merged_blocks(plan, name, blocks):
        piece = np.asarray(block).reshape(-1)[:left]
        left -= piece.size
        yield piece


def merged_blocks(plan: Plan, name: str, blocks: Sequence[tensor.Blocks]) -> Iterator[jax.Array]:
    """The blocks of a tensor of the result, from those of each source's, the base's first.

    Raises:
      UserError: the method has no result for it.
    """
    recipe = plan.recipe
    base, models = (None, blocks) if recipe.base is None else (blocks[0], blocks[1:])
    drawn = plan.settings[name].about.sparsifier in _BY_CHANCE  # an identity may take a look at all of a model
    names = [source.identity if drawn else source.name for source in plan.sources][len(blocks) - len(models) :]
    try:
        yield from tensor.merge(
            name, plan.settings[name], base, models, names=names, seed=recipe.seed, dtype=plan.dtype
        )
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def write_beside(plan: Plan, folder: Path) -> None:
    """Writes all but the weights: configuration, tokenizer, chat template and model card."""
    write_small_files(folder, plan.owner.found, plan.config, plan.dtype.name)
    if plan.tokenizer is not None:
        write_atomic(folder / "tokenizer.json", plan.tokenizer)
    if plan.template is not None:
        write_atomic(folder / "chat_template.jinja", plan.template)
        file = folder / "tokenizer_config.json"
        fields = json.loads(file.read_bytes()) if file.is_file() else {}
        if fields.pop("chat_template", None) is not None:
            write_atomic(file, json.dumps(fields, indent=2, ensure_ascii=False) + "\n")
    write_atomic(folder / "README.md", model_card(plan))


def refuse_target(target: Path, recipe: Recipe) -> None:
    """Raises UserError where the target holds something that no merge wrote, or one of the models."""
    for name in recipe.sources:
        for part in {Path(name), *map(Path, name.split("+"))}:
            if part.exists() and (target.resolve() == part.resolve() or target.resolve() in part.resolve().parents):
                raise UserError(f"TARGET {target} is {name}, which is merged, or holds it; choose another directory")
    if target.exists() and not (target / MERGE).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"TARGET {target} is there, and no merge wrote it; choose another directory, or remove it")


@contextlib.contextmanager
def working_folder(target: Path, about: dict[str, Any]) -> Iterator[Path]:
    """A folder beside `target` that takes its place when all went well, and else stays for the same merge to go on.

    Args:
      target: to be.
      about: what the merge is; a folder of another one is emptied.

    Raises:
      UserError: another process merges into this target, or the disk cannot be written.
    """
    beside = target.with_name(f".{target.name}.merging")
    text = json.dumps(about, indent=1) + "\n"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with open(beside / _LOCK, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"TARGET {target}: another process is merging into it; wait for it, or choose another"
                ) from None
            if not (beside / MERGE).is_file() or (beside / MERGE).read_text() != text:
                _empty(beside)
                write_atomic(beside / MERGE, text)
            yield beside
            (beside / _LOCK).unlink()
            if target.exists():
                shutil.rmtree(target)
            beside.rename(target)
    except OSError as error:
        raise unwritable(target, error) from error


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        if file.name != _LOCK:
            file.unlink()


def _tell(bar: BytesBar, total: int, size: int) -> None:
    bar(size, total)
