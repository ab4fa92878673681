import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data.batches import validation_batches
from aya_jax.data.config import DataConfig, MixtureConfig
from aya_jax.models.transformer import TokenScores
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.validation import (
    HeldOut,
    by_tag,
    check_tokenizer,
    combine,
    held_out_store,
    held_out_tasks,
    make_score,
    record,
    score_batches,
)
from tests.data.stores import VOCABULARY, document, random_documents, write_store

LN2 = math.log(2)


class Uniform:
    """A model that finds every token equally likely."""

    def __init__(self, size):
        self.size = size

    def __call__(self, params, batch):
        lse = jnp.full(batch["targets"].shape, math.log(self.size))
        return TokenScores(-lse, lse, entropy=lse, correct=batch["targets"] % 2 == 0)


@pytest.fixture
def held_out(tmp_path):
    """Two tasks with held-out documents, one whose split is empty, and one without any."""
    for number, task in enumerate(("text_de", "text_en")):
        shards = [random_documents(7 * number + shard, 5, 40) for shard in (1, 2)]
        write_store(str(tmp_path / task / "validation"), shards, task=task, split="validation")
    write_store(str(tmp_path / "text_fr" / "validation"), [[]], task="text_fr", split="validation")
    write_store(str(tmp_path / "text_it" / "train"), [[document([65])]], task="text_it")
    return tmp_path


def measure(folder, task, model, packing="windows", **more):
    config = DataConfig(
        store_dir=str(folder), mixture=MixtureConfig(rates=task), sequence_length=16, global_batch=4, packing=packing
    )
    scored = score_batches(
        make_score(model, make_mesh(MeshConfig())),
        None,
        validation_batches(config, task, **more),
        held_out_store(str(folder), task).token_bytes,
    )
    return combine(part.total() for part in scored)


@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_a_uniform_model_needs_log2_v_bits_a_token(held_out, packing):
    store = held_out_store(str(held_out), "text_de")
    documents = store.read_documents(np.arange(store.num_documents))
    tokens, num_bytes = sum(len(d) - 1 for d in documents), sum(len(d) - 2 for d in documents)
    found = measure(held_out, "text_de", Uniform(259), packing)
    assert (found.tokens, found.bytes) == (tokens, num_bytes)
    assert found.loss == pytest.approx(math.log(259), rel=1e-6)
    assert found.perplexity == pytest.approx(259, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(tokens * math.log2(259) / num_bytes, rel=1e-6)
    assert found.summary()["entropy"] == pytest.approx(math.log(259), rel=1e-6)
    assert found.correct == sum(int(np.sum(np.asarray(d)[1:] % 2 == 0)) for d in documents)


def test_at_most_so_many_tokens_rounded_up_to_rows(held_out):
    assert measure(held_out, "text_de", Uniform(259), max_tokens=17).tokens <= 32
    assert measure(held_out, "text_de", Uniform(259), max_tokens=17).tokens > 16


def test_tasks_with_held_out_documents_are_chosen_by_pattern(held_out):
    assert held_out_tasks(str(held_out), ("text_*",)) == ("text_de", "text_en")
    assert held_out_tasks(str(held_out), ("text_en", "text_it")) == ("text_en",)
    assert held_out_tasks(str(held_out), ("code_*",)) == ()


def test_a_record_has_all_tasks_together_and_each():
    found = record({"a": HeldOut(10.0, 4, 5, 6.0, 3), "b": HeldOut(2.0, 4, 11, 2.0, 4)})
    assert (found["entropy"], found["mean_token_accuracy"]) == (1.0, 7 / 8)
    assert (found["validation/a/entropy"], found["validation/a/mean_token_accuracy"]) == (1.5, 0.75)
    assert found["loss"] == 12 / 8
    assert found["bits_per_byte"] == pytest.approx(12 / LN2 / 16)
    assert found["validation/a/loss"] == 2.5
    assert found["validation/b/bits_per_byte"] == pytest.approx(2 / LN2 / 11)
    assert found["validation/a/perplexity"] == pytest.approx(math.exp(2.5))
    assert (found["validation/a/tokens"], found["validation/b/bytes"]) == (4, 11)


def test_languages_are_of_text_and_domains_of_everything():
    results = {
        "text_en": HeldOut(10.0, 4, 5, 2.0, 1),
        "text_de": HeldOut(2.0, 4, 11, 6.0, 2),
        "code_web": HeldOut(3.0, 1, 6, 1.0, 0),
    }
    tags = {"text_en": ("en", "text"), "text_de": ("de", "text"), "code_web": ("code", "web_code")}
    expected = {
        "language/en": (10 / LN2 / 5, 0.5, 0.25),
        "language/de": (2 / LN2 / 11, 1.5, 0.5),
        "domain/text": (12 / LN2 / 16, 1.0, 3 / 8),
        "domain/web_code": (3 / LN2 / 6, 1.0, 0.0),
    }
    names = ("bits_per_byte", "entropy", "mean_token_accuracy")
    assert by_tag(results, tags) == pytest.approx(
        {
            f"{group}/{name}": value
            for group, values in expected.items()
            for name, value in zip(names, values, strict=True)
        }
    )


@given(st.lists(st.tuples(st.floats(0, 1e3), st.integers(1, 100), st.integers(1, 100)), min_size=1, max_size=5))
def test_sums_of_parts_are_the_whole(parts):
    whole = combine(HeldOut(*part) for part in parts)
    assert whole.tokens == sum(tokens for _, tokens, _ in parts)
    assert whole.loss == pytest.approx(sum(nll for nll, _, _ in parts) / whole.tokens)


def test_nothing_measured_is_not_a_number():
    assert math.isnan(HeldOut().loss)
    assert math.isnan(HeldOut().bits_per_byte)
    assert HeldOut(1e6, 1, 1).perplexity == math.inf


def test_another_tokenizer_is_refused(held_out):
    store = held_out_store(str(held_out), "text_de")
    check_tokenizer(store, VOCABULARY.info())
    with pytest.raises(UserError, match=r"text_de.validation: made with another tokenizer"):
        check_tokenizer(store, VOCABULARY.info("other"))
