"""`aya merge` end to end, against sums that NumPy makes in float64."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.interop.adapter import Adapter, Factors, write_adapter
from aya_jax.interop.model_dir import find_model
from aya_jax.merging.merge import working_folder
from aya_jax.merging.methods import METHODS
from aya_jax.merging.sources import open_source
from tests.merging.chat_models import chat_model
from tests.merging.models import edit, merge, tensors, variant
from tests.training import small_run
from tools.make_golden_logits import CONFIGS

TABLE = "model.embed_tokens.weight"


@pytest.fixture
def three(tmp_path):
    return tuple(variant(tmp_path / name, seed) for seed, name in enumerate("abc"))


def linear(parts, weights):
    """The weighted average in float64."""
    share = np.array(weights) / np.sum(weights)
    return {
        name: sum(w * part[name].astype(np.float64) for w, part in zip(share, parts, strict=True)) for name in parts[0]
    }


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name].astype(np.float64), array, err_msg=name, **tolerance)


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_an_average_of_every_architecture(architecture, tmp_path):
    a, b = (variant(tmp_path / name, seed, architecture) for seed, name in enumerate("ab"))
    assert merge("merge/linear.gin", tmp_path / "merged", a, b, WEIGHTS=(1.0, 3.0)) == 0
    assert_same(tensors(tmp_path / "merged"), linear([tensors(a), tensors(b)], (1, 3)), atol=1e-6)
    found = find_model(tmp_path / "merged", print)
    assert found.config == CONFIGS[architecture]
    found.reader()
    theirs, ours = (json.loads((path / "config.json").read_text()) for path in (a, tmp_path / "merged"))
    for field in ("architectures", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"):
        assert ours[field] == theirs[field], field
    assert (tmp_path / "merged" / "generation_config.json").read_bytes() == (a / "generation_config.json").read_bytes()
    assert ("lm_head.weight" in tensors(tmp_path / "merged")) == (not CONFIGS[architecture].tie_embeddings)


def test_task_arithmetic_with_a_gradient_and_rules(three, tmp_path):
    base, a, b = map(tensors, three)
    (tmp_path / "task.gin").write_text("MergeConfig.method = 'task_arithmetic'\nMergeConfig.scale = 0.5\n")
    weights = ((0.2, 0.8), (("mlp", 0.3), ("*", 1.0)))
    assert merge(tmp_path / "task.gin", tmp_path / "merged", *three[1:], BASE=three[0], WEIGHTS=weights) == 0
    found = tensors(tmp_path / "merged")
    for name, array in base.items():
        first = 0.8 if ".layers.1." in name else 0.2  # two layers; outside of them the first number
        second = 0.3 if "mlp" in name else 1.0
        wide = array.astype(np.float64)
        expected = wide + 0.5 * (first * (a[name] - wide) + second * (b[name] - wide))
        np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)


def test_sums_of_narrow_weights_are_rounded_once(tmp_path):
    parts = [variant(tmp_path / name, seed, dtype=ml_dtypes.bfloat16) for seed, name in enumerate("abcd")]
    assert merge("merge/linear.gin", tmp_path / "merged", *parts) == 0
    expected = linear([tensors(part) for part in parts], (1, 1, 1, 1))
    found = tensors(tmp_path / "merged")
    assert {array.dtype.name for array in found.values()} == {"bfloat16"}
    wrong = sum(int((found[name] != array.astype(ml_dtypes.bfloat16)).sum()) for name, array in expected.items())
    assert wrong <= 1e-3 * sum(
        array.size for array in expected.values()
    )  # float32 may fall on the other side of a half


def test_run_directories_hugging_face_directories_and_adapters_mix(three, tmp_path):
    """One of ours with rows that were added for a mesh, its original's neighbour, and an adapter of the third."""
    a, b, c = three
    ours = tmp_path / "ours"
    assert main(["convert", f"--gin.SOURCE={a}", f"--gin.TARGET={ours}", "--gin.ConvertConfig.vocab_multiple=64"]) == 0
    name, rng = "model.layers.0.mlp.up_proj.weight", np.random.default_rng(0)
    low = Factors(rng.normal(size=(2, 32)).astype(np.float32), rng.normal(size=(48, 2)).astype(np.float32), 0.5)
    write_adapter(tmp_path / "lora", Adapter(tmp_path, {name: low}, base=str(c)))
    adapted = tensors(c)
    adapted[name] = adapted[name].astype(np.float64) + 0.5 * low.b.astype(np.float64) @ low.a
    expected = linear([tensors(a), tensors(b), adapted], (1, 1, 1))
    for number, third in enumerate((tmp_path / "lora", f"{c}+{tmp_path / 'lora'}")):
        assert merge("merge/linear.gin", tmp_path / f"merged{number}", ours, b, third) == 0
        assert_same(tensors(tmp_path / f"merged{number}"), expected, atol=1e-6)


@pytest.mark.parametrize("file", ["merge/dare_ties.gin", "merge/della.gin"])
def test_random_masks_are_those_of_the_weights_and_not_of_a_checkpoints_files(three, tmp_path, file):
    """A model that is trained again to the same bits is in other bytes on disk, of which merges know nothing."""
    base, a, b = three
    saved = {}
    for name, source in (("once", a), ("again", a), ("other", b)):
        assert main(["convert", f"--gin.SOURCE={source}", f"--gin.TARGET={tmp_path / name}"]) == 0
        if name == "again":  # as Orbax, which names the file of its values anew each time
            checkpoint = tmp_path / name / "checkpoints" / "0"
            (checkpoint / "params" / "named_anew").write_bytes(b"")
            (checkpoint / "checksums.json").unlink()
        saved[name] = open_source(str(tmp_path / name), print)
    assert saved["once"].digest != saved["again"].digest  # so the test says something
    assert saved["once"].identity == saved["again"].identity != saved["other"].identity
    merged = {}
    for name in ("once", "again"):
        assert merge(file, tmp_path / f"merged_{name}", tmp_path / name, b, BASE=base, densities=0.5) == 0
        merged[name] = tensors(tmp_path / f"merged_{name}")
    assert_same(merged["again"], merged["once"], atol=0)
    assert open_source(str(a), print).identity == open_source(str(a), print).digest


def test_checkpoints_of_a_run_are_averaged_or_their_moving_average_is_taken(three, tmp_path, capsys):
    run = tmp_path / "run"
    for step, source in enumerate(three):
        assert main(["convert", f"--gin.SOURCE={source}", f"--gin.TARGET={tmp_path / 'one'}"]) == 0
        shutil.copytree(tmp_path / "one" / "checkpoints" / "0", run / "checkpoints" / str(10 * step))
    parts = [tensors(source) for source in three]
    assert merge("merge/checkpoints.gin", tmp_path / "all", run) == 0
    assert_same(tensors(tmp_path / "all"), linear(parts, (1, 1, 1)), atol=1e-6)
    assert merge("merge/checkpoints.gin", tmp_path / "two", run, steps=(0, 20)) == 0
    assert_same(tensors(tmp_path / "two"), linear([parts[0], parts[2]], (1, 1)), atol=1e-6)
    # 0.75 (0.75 first + 0.25 second) + 0.25 third
    assert merge("merge/checkpoints.gin", tmp_path / "ema", run, decay=0.75) == 0
    assert_same(tensors(tmp_path / "ema"), linear(parts, (0.5625, 0.1875, 0.25)), atol=1e-6)
    capsys.readouterr()
    assert merge("merge/checkpoints.gin", tmp_path / "none", run, steps=(0, 15)) == 1
    assert "it has no checkpoint 15; there are 0, 10, 20" in capsys.readouterr().err


def test_a_file_of_mergekits_gives_what_gin_gives(three, tmp_path):
    base, a, b = three
    (tmp_path / "m.yml").write_text(
        f"merge_method: ties\nbase_model: {base}\nmodels:\n- model: {a}\n  parameters: {{weight: 0.5, density: 0.3}}\n"
        f"- model: {b}\n  parameters: {{weight: [0.2, 0.8], density: 0.3}}\n"
    )
    assert main(["merge", str(tmp_path / "m.yml"), f"--gin.TARGET={tmp_path / 'yml'}"]) == 0
    bindings = {"BASE": base, "WEIGHTS": (0.5, (0.2, 0.8)), "densities": 0.3}
    assert merge("merge/ties.gin", tmp_path / "gin", a, b, **bindings) == 0
    yml, gin = (tensors(tmp_path / name) for name in ("yml", "gin"))
    for name, array in yml.items():
        np.testing.assert_array_equal(array, gin[name], err_msg=name)
    changed = [np.mean(yml[name] != array) for name, array in tensors(base).items() if array.size > 1000]
    assert 0.3 < np.mean(changed) < 0.6  # the union of two shares of 0.3, without those that disagree in both


def test_the_record_and_the_card_say_what_it_was_made_of(three, tmp_path):
    assert merge("merge/slerp.gin", tmp_path / "merged", *three[:2], t=0.25) == 0
    record = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert (record["recipe"]["method"], record["recipe"]["t"], record["dtype"]) == ("slerp", 0.25, "float32")
    digests = [source["digest"] for source in record["sources"]]
    assert len(set(digests)) == 2
    card = (tmp_path / "merged" / "README.md").read_text()
    for path, digest in zip(three, digests, strict=False):
        assert str(path) in card
        assert digest[:16] in card
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("tokenizer", ["union", "a", "b"])
def test_different_vocabularies_are_merged_by_token(tokenizer, tmp_path):
    a, b = (chat_model(tmp_path / name, seed, added=f"<|{name}|>") for seed, name in enumerate("ab"))
    chosen = "union" if tokenizer == "union" else str(tmp_path / tokenizer)
    assert merge("merge/linear.gin", tmp_path / "merged", a, b, tokenizer=chosen, WEIGHTS=(1.0, 3.0)) == 0
    found, first, second = (tensors(path) for path in (tmp_path / "merged", a, b))
    average = 0.25 * first[TABLE] + 0.75 * second[TABLE]
    np.testing.assert_allclose(found[TABLE][:340], average[:340], atol=1e-6)
    np.testing.assert_allclose(found["model.norm.weight"], first["model.norm.weight"], atol=1e-6)
    names = json.loads((tmp_path / "merged" / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids = {token["content"]: token["id"] for token in names}
    if tokenizer == "union":
        assert (ids["<|a|>"], ids["<|b|>"]) == (340, 341)
        np.testing.assert_allclose(found[TABLE][340:342], [first[TABLE][340], second[TABLE][340]], atol=1e-6)
        rest, owner = slice(342, 344), first
    else:
        assert (ids.get("<|a|>"), ids.get("<|b|>")) == ((340, None) if tokenizer == "a" else (None, 340))
        owner = first if tokenizer == "a" else second
        rest = slice(340, 344)
    np.testing.assert_allclose(
        found[TABLE][rest], owner[TABLE][rest], atol=1e-6
    )  # of the token it alone has, and of none
    from tokenizers import Tokenizer

    text = Tokenizer.from_file(str(tmp_path / "merged" / "tokenizer.json"))
    assert text.encode("hello <|b|>", add_special_tokens=False).tokens.count("<|b|>") == ("<|b|>" in ids)


def test_a_chat_template_is_that_of_a_model_or_given(tmp_path):
    """Older files keep it in tokenizer_config.json, where it must not stay beside another."""
    a, b = (chat_model(tmp_path / name, seed) for seed, name in enumerate("ab"))
    (a / "chat_template.jinja").unlink()
    edit(a / "tokenizer_config.json", chat_template="of a")
    for given, expected in ((str(b), (b / "chat_template.jinja").read_text()), ("{{ messages }}", "{{ messages }}")):
        assert merge("merge/linear.gin", tmp_path / "merged", a, b, chat_template=given) == 0
        assert (tmp_path / "merged" / "chat_template.jinja").read_text() == expected
        assert "chat_template" not in json.loads((tmp_path / "merged" / "tokenizer_config.json").read_text())


@pytest.mark.parametrize(
    "method", ["breadcrumbs_ties", "della_linear", "karcher", "model_stock", "multislerp", "nuslerp"]
)
def test_other_methods_run_from_the_command_line(method, three, tmp_path):
    """What they make is none of the models that it was made of."""
    base, a, b = three
    (tmp_path / "method.gin").write_text(f"MergeConfig.method = {method!r}\nMergeConfig.seed = 1\n")
    bindings = {"densities": 0.5} if METHODS[method].sparsifier else {}
    bindings |= {"BASE": base} if METHODS[method].base == "required" else {}
    assert merge(tmp_path / "method.gin", tmp_path / "merged", a, b, **bindings) == 0
    found = tensors(tmp_path / "merged")
    for source in three:
        assert not np.allclose(found[TABLE], tensors(source)[TABLE], atol=1e-3)
    assert all(np.isfinite(array).all() for array in found.values())


def test_two_merges_into_one_target_do_not_meet(three, tmp_path, capsys):
    with working_folder(tmp_path / "merged", {}):
        assert merge("merge/linear.gin", tmp_path / "merged", *three) == 1
    assert "another process is merging into it" in capsys.readouterr().err


def test_a_merged_model_answers(tmp_path):
    a, b = (chat_model(tmp_path / name, seed) for seed, name in enumerate("ab"))
    assert merge("merge/slerp.gin", tmp_path / "merged", a, b) == 0
    (tmp_path / "prompts.jsonl").write_text('{"id": "1", "prompt": "hello"}\n')
    bindings = (
        f"INPUT={tmp_path / 'prompts.jsonl'}",
        f"OUTPUT={tmp_path / 'answers.jsonl'}",
        "SamplingConfig.max_tokens=3",
    )
    assert main(["generate", f"--gin.MODEL_DIR={tmp_path / 'merged'}", *(f"--gin.{each}" for each in bindings)]) == 0
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1


KILLED = """
import os, pathlib, signal, sys
from aya_jax.cli import main
from aya_jax.merging import merge
target = pathlib.Path(sys.argv[-1].removeprefix("--gin.TARGET="))
def tell(bar, total, size):
    if len(list(target.with_name(f".{target.name}.merging").glob("*.safetensors"))) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
merge._tell = tell
main(sys.argv[1:])
"""


@pytest.fixture
def dare(three, tmp_path):
    """The command line of a DARE merge into several files, without the target's."""
    base, a, b = three
    models, binding = (str(a), str(b)), "--gin.MergeConfig."
    command = [
        "merge",
        "merge/dare_ties.gin",
        f"--gin.MODELS={models!r}",
        f"--gin.BASE={base}",
        f"{binding}shard_gb=2e-5",
    ]
    return [*command, f"{binding}seed=3", f"--gin.TARGET={tmp_path / 'merged'}"]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(dare, tmp_path, capsys):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *dare],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    beside = tmp_path / ".merged.merging"
    kept = {file: file.stat().st_mtime_ns for file in beside.glob("*.safetensors")}
    assert len(kept) == 2
    assert not (tmp_path / "merged").exists()
    assert main(dare) == 0
    assert f"{len(kept)} files of weights were there from a merge that was stopped" in capsys.readouterr().out
    for file, written in kept.items():
        assert (tmp_path / "merged" / file.name).stat().st_mtime_ns == written
    resumed = contents(tmp_path / "merged")
    shutil.rmtree(tmp_path / "merged")
    assert main(dare) == 0
    assert contents(tmp_path / "merged") == resumed
    assert len([name for name in resumed if name.endswith(".safetensors")]) > len(kept)
    assert not [name for name in resumed if name.endswith(".part") or name == "lock"]


def test_what_another_merge_has_left_is_made_anew(dare, tmp_path, capsys):
    beside = tmp_path / ".merged.merging"
    beside.mkdir()
    (beside / "merge.json").write_text("{}")
    (beside / "model-00001-of-00004.safetensors").write_text("of another seed")
    assert main(dare) == 0
    assert "were there" not in capsys.readouterr().out
    find_model(tmp_path / "merged", print).reader()


def test_on_eight_devices_it_is_what_it_is_on_one(dare, tmp_path):
    assert main(dare) == 0
    alone = tensors(tmp_path / "merged")
    shutil.rmtree(tmp_path / "merged")
    small_run.run(*dare, devices=8)
    for name, array in tensors(tmp_path / "merged").items():
        np.testing.assert_allclose(array, alone[name], rtol=1e-6, atol=1e-7, err_msg=name)
