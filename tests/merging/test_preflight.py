"""What `aya merge` refuses before a byte is written, all at once; and what it only notes."""

import json
import shutil

import numpy as np
import pytest

from tests.merging.chat_models import chat_model
from tests.merging.models import WEIGHTS, damage, edit, merge, variant

NORM = "model.layers.1.input_layernorm.weight"
TABLE = "model.embed_tokens.weight"


@pytest.fixture
def two(tmp_path):
    return variant(tmp_path / "a", 1), variant(tmp_path / "b", 2)


def refused(capsys, tmp_path, file, *models, **bindings):
    """The lines of the refusal; nothing may have been written."""
    before = sorted(tmp_path.rglob("*"))
    code = merge(file, tmp_path / "merged", *models, **bindings)
    error = capsys.readouterr().err
    assert code == 1, error
    assert sorted(tmp_path.rglob("*")) == before
    return error.splitlines()


def test_all_mismatches_are_told_at_once(tmp_path, two, capsys):
    a, b = two
    other = variant(tmp_path / "c", 3, "cohere_qk_norm")
    damage(a, NORM, (5,), np.nan)
    damage(a, TABLE, (9, 3), np.inf)
    lines = refused(capsys, tmp_path, "merge/linear.gin", a, b, other, tmp_path / "none", WEIGHTS=(1.0, -2.0, 1.0, 0.0))
    expected = [
        f"{tmp_path / 'none'}: no model is there",
        f"qk_norm: False in {a}, and True in {other}",
        f"logit_scale: 0.25 in {a}, and 0.0625 in {other}",
        "weights: they sum to zero for",
        f"{a / WEIGHTS}: {TABLE}[9, 3] is inf; this model is damaged",
        f"{a / WEIGHTS}: {NORM}[5] is nan; this model is damaged",
        "6 problems; nothing was written.",
    ]
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_architectures_and_layers_that_differ(tmp_path, two, capsys):
    a, _ = two
    llama = variant(tmp_path / "llama", 3, "llama3")
    assert f"architecture: {a} is CohereForCausalLM, and {llama} LlamaForCausalLM" in refused(
        capsys, tmp_path, "merge/linear.gin", a, llama
    )
    tiny, deep = chat_model(tmp_path / "tiny", 0), chat_model(tmp_path / "deep", 1, layers=3)
    assert refused(capsys, tmp_path, "merge/linear.gin", tiny, deep)[0] == f"num_layers: 2 in {tiny}, and 3 in {deep}"


def test_one_model_given_twice_is_known_by_its_weights(tmp_path, two, capsys):
    a, b = two
    copy = shutil.copytree(a, tmp_path / "copy")
    lines = refused(capsys, tmp_path, "merge/ties.gin", copy, b, BASE=a)
    assert lines == [
        f"{copy}: the same weights as {a}, bit for bit; give each model once",
        "1 problem; nothing was written.",
    ]


def test_a_truncated_file_of_weights(tmp_path, two, capsys):
    a, b = two
    (b / WEIGHTS).write_bytes((b / WEIGHTS).read_bytes()[:-9])
    assert refused(capsys, tmp_path, "merge/linear.gin", a, b)[0].startswith(f"{b / WEIGHTS}: damaged")


def test_numbers_that_are_none_of_the_methods_for_some_tensor(tmp_path, two, capsys):
    a, b = two
    lines = refused(capsys, tmp_path, "merge/slerp.gin", a, b, t=(("mlp", 0.3),))
    assert lines[0] == f"t: no rule is for {TABLE}; end the rules with ('*', a number)"
    lines = refused(capsys, tmp_path, "merge/della.gin", a, BASE=b, densities=0.1)
    assert lines[0].startswith("epsilons: 0.15 with a density of 0.1")
    lines = refused(capsys, tmp_path, "merge/linear.gin", a, b, WEIGHTS=((0.0, 1.0), (0.0, -1.0)))
    assert lines[0].startswith(f"weights: they sum to zero for {TABLE}")


def test_the_scan_can_be_left_out(tmp_path, two):
    a, b = two
    damage(a, NORM, (5,), np.nan)
    assert merge("merge/linear.gin", tmp_path / "merged", a, b, scan=False) == 0


def test_vocabularies_that_differ_are_refused_with_the_first_tokens(tmp_path, capsys):
    a, b = (chat_model(tmp_path / name, seed, added=f"<|{name}|>") for seed, name in enumerate("ab"))
    assert refused(capsys, tmp_path, "merge/linear.gin", a, b)[0] == (
        f"vocabulary: ids of {a} and {b} differ: 340 is '<|a|>' and '<|b|>'; "
        "bind MergeConfig.tokenizer = 'union', 'base', or the model whose vocabulary is to stay"
    )


def test_rows_special_ids_and_templates_that_differ(tmp_path, capsys):
    a, b, c = (chat_model(tmp_path / name, seed) for seed, name in enumerate("abc"))
    (b / "chat_template.jinja").write_text("{{ messages[0].content }}")
    edit(b / "tokenizer_config.json", pad_token="<|SYSTEM_TOKEN|>")
    text = (b / "tokenizer.json").read_text(encoding="utf-8")
    (b / "tokenizer.json").write_text(text.replace('"<PAD>"', '"<|NOTHING|>"'), encoding="utf-8")
    lines = refused(capsys, tmp_path, "merge/linear.gin", a, b)
    assert lines[0].startswith(f"vocabulary: ids of {a} and {b} differ: 0 is '<PAD>' and '<|NOTHING|>'")
    assert lines[1].startswith(f"chat template: {a} and {b} have different ones")
    assert len(lines) == 3
    edit(c / "tokenizer_config.json", eos_token="<|SYSTEM_TOKEN|>")
    assert merge("merge/linear.gin", tmp_path / "merged", a, c) == 0  # known names come before the file's


def test_special_ids_that_differ(tmp_path, capsys):
    """A tokenizer without a token of a known name for padding: its tokenizer_config.json says which it is."""
    a, b = (chat_model(tmp_path / name, seed) for seed, name in enumerate("ab"))
    for folder, pad in ((a, "<|SYSTEM_TOKEN|>"), (b, "<|USER_TOKEN|>")):
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        (folder / "tokenizer.json").write_text(text.replace('"<PAD>"', '"<|NOTHING|>"'), encoding="utf-8")
        edit(folder / "tokenizer_config.json", pad_token=pad)
    ids = {token["content"]: token["id"] for token in json.loads((a / "tokenizer.json").read_text())["added_tokens"]}
    assert refused(capsys, tmp_path, "merge/linear.gin", a, b)[0].startswith(
        f"special ids: pad is {ids['<|SYSTEM_TOKEN|>']} in {a}, and {ids['<|USER_TOKEN|>']} in {b}; bind MergeConfig.tokenizer"
    )
    assert merge("merge/linear.gin", tmp_path / "merged", a, b, tokenizer=str(b)) == 0
    assert json.loads((tmp_path / "merged" / "tokenizer_config.json").read_text())["pad_token"] == "<|USER_TOKEN|>"


def test_what_is_only_noted(tmp_path, capsys):
    a, b = (chat_model(tmp_path / name, seed) for seed, name in enumerate("ab"))
    (a / "chat_template.jinja").unlink()
    fields = json.loads((b / "tokenizer.json").read_text(encoding="utf-8"))
    fields["truncation"] = None
    (b / "tokenizer.json").write_text(json.dumps(fields), encoding="utf-8")
    assert merge("merge/linear.gin", tmp_path / "merged", a, b, dtype="bfloat16") == 0
    output = capsys.readouterr().out
    assert f"{a}: without a chat template; the others' is kept" in output
    assert "the models are float32; sums are made in float32, and the result is written as bfloat16" in output
    assert "have the same ids and differ elsewhere" in output
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == (b / "chat_template.jinja").read_text()


def test_a_target_that_no_merge_wrote_and_a_source_are_not_touched(tmp_path, two, capsys):
    a, b = two
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "notes.txt").write_text("mine")
    assert "merged is there, and no merge wrote it" in refused(capsys, tmp_path, "merge/linear.gin", a, b)[0]
    shutil.rmtree(tmp_path / "merged")
    assert merge("merge/linear.gin", a, a, b) == 1
    assert "which is merged, or holds it" in capsys.readouterr().err
    assert merge("merge/linear.gin", tmp_path, a, b) == 1
    assert merge("merge/linear.gin", tmp_path / "merged", a, b) == 0
    assert merge("merge/linear.gin", tmp_path / "merged", a, b, WEIGHTS=(0.1, 0.9)) == 0  # its own is replaced
