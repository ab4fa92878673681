"""Log-probabilities of continuations against the model's plain logits in float64, each continuation alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.evaluation.scoring import Block, Continuation, Scorer, Text, buckets, pack, texts
from aya_jax.models.config import TransformerConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from tests import eight_devices
from tools.random_model import shape

VOCAB, LONGEST = 340, 160


def make_model():
    config: TransformerConfig = shape(32, 2, LONGEST)
    model = Transformer(config)
    params = model.init(jax.random.key(0))
    return model, jax.tree.map(lambda leaf: leaf * 8 if leaf.ndim > 1 else leaf, params)  # so that tokens differ


def questions():
    """Choices of one question, one beginning another, a lone one, one too long, and a row of its own."""
    rng = np.random.default_rng(0)

    def ids(count):
        return tuple(int(i) for i in rng.integers(0, VOCAB, count))

    context = ids(20)
    letters = [Continuation(context, (letter,)) for letter in (3, 7, 11, 19)]
    begun = [Continuation(context, (3, 50, 60)), Continuation(context, (3, 50))]
    long = [Continuation(ids(140), ids(9)), Continuation(ids(LONGEST + 30), ids(5)), Continuation(ids(1), ids(LONGEST))]
    return [
        *letters,
        *begun,
        Continuation(ids(1), ids(4)),
        *long,
        *(Continuation(ids(7), ids(k)) for k in range(1, 12)),
    ]


def by_hand(model, params, asked):
    """(log-probability, greedy) from the logits of the text alone."""
    found = []
    logits = jax.jit(model.logits)
    for context, tokens in asked:
        text = (context + tokens)[-(LONGEST + 1) :]
        row = np.zeros((1, LONGEST), np.int32)
        row[0, : len(text) - 1] = text[:-1]
        scores = np.asarray(logits(params, {"tokens": jnp.asarray(row)}), np.float64)[0]
        scores = scores[len(text) - 1 - len(tokens) : len(text) - 1]
        peak = scores.max(-1, keepdims=True)
        log_probs = scores - peak - np.log(np.exp(scores - peak).sum(-1, keepdims=True))
        found.append(
            (log_probs[np.arange(len(tokens)), tokens].sum(), bool(np.all(log_probs.argmax(-1) == np.array(tokens))))
        )
    return found


def scored(model, params, asked, mesh=None, batch_tokens=2048):
    answers = {}
    scorer = Scorer(model, make_mesh(mesh or MeshConfig()), max_length=LONGEST, batch_tokens=batch_tokens)
    scorer.score(params, asked, answers.update)
    assert sorted(answers) == list(range(len(asked)))
    return [answers[number] for number in range(len(asked))]


@pytest.mark.parametrize("batch_tokens", [512, 4096])
def test_every_continuation_is_scored_as_if_alone(batch_tokens):
    model, params = make_model()
    asked = questions()
    likeliest = by_hand(model, params, [Continuation(asked[0].context, (k,)) for k in range(VOCAB)])
    best = max(range(VOCAB), key=lambda k: likeliest[k][0])
    asked += [Continuation(asked[0].context, (best,)), Continuation(asked[0].context, (best, 1))]
    expected, found = by_hand(model, params, asked), scored(model, params, asked, batch_tokens=batch_tokens)
    np.testing.assert_allclose([f.log_prob for f in found], [e[0] for e in expected], atol=2e-4, rtol=1e-6)
    assert [f.greedy for f in found] == [e[1] for e in expected]
    assert found[-2].greedy


def test_choices_of_one_token_are_one_text():
    asked = questions()[:6]
    found = texts(asked, LONGEST)
    assert [(len(text.tokens), sorted(text.askers)) for text in found] == [(22, [0, 1, 2, 3, 4, 5])]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=6), st.lists(st.integers(0, 2), min_size=1, max_size=4)
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(4, 12),
)
def test_texts_hold_what_every_continuation_reads_and_none_begins_another(pairs, longest):
    asked = [Continuation(tuple(context), tuple(tokens)) for context, tokens in pairs]
    found = texts(asked, longest)
    owner = {number: text for text in found for number in text.askers}
    assert sorted(owner) == list(range(len(asked)))
    for number, (context, tokens) in enumerate(asked):
        read = (context + tokens)[-(longest + 1) :][:-1]
        assert owner[number].tokens[: len(read)] == read
    for text in found:
        assert not any(o is not text and o.tokens[: len(text.tokens)] == text.tokens for o in found)


@settings(deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.sampled_from([64, 2048, 100_000]))
def test_every_block_is_in_one_row_that_it_fits(lengths, batch_tokens):
    found = [Block(Text((0,) * length, [number]), None, length) for number, length in enumerate(lengths)]
    put = []
    for longest, here in buckets(found, batch_tokens):
        row, packed = pack([block.length for block in here], longest)
        assert row in (longest, longest // 2)
        for pieces in packed:
            assert sum(piece.length for piece in pieces) <= row
            assert all(piece.last and piece.start == 0 for piece in pieces)  # none is cut
            put += [here[piece.document].first.askers[0] for piece in pieces]
    assert sorted(put) == list(range(len(lengths)))


def test_blocks_that_make_no_batch_go_with_shorter_ones():
    found = [Block(Text((0,) * length, []), None, length) for length in [70] * 3 + [40] * 100 + [600]]
    assert [(row, len(here)) for row, here in buckets(found, 2048)] == [(1024, 1), (256, 103)]
    assert [(row, len(here)) for row, here in buckets(found, 64)] == [(1024, 1), (512, 3), (256, 100)]


def test_short_rows_are_taken_where_they_fill_as_well():
    assert pack([32] * 64, 256)[0] == 128
    assert pack([50] * 64, 256)[0] == 256  # two in 128 leave 28


def test_eight_devices_score_as_one():
    eight_devices.run("-c", "from tests.evaluation.test_scoring import on_eight; on_eight()")


def on_eight():
    """Run by the test above with eight emulated devices."""
    model, params = make_model()
    asked = questions()
    expected = by_hand(model, params, asked)
    for mesh in (MeshConfig(fsdp=4, tensor=2), MeshConfig(fsdp=2, context=2, tensor=2)):
        found = scored(model, params, asked, mesh)
        np.testing.assert_allclose([f.log_prob for f in found], [e[0] for e in expected], atol=2e-4, rtol=1e-6)
        assert [f.greedy for f in found] == [e[1] for e in expected]
