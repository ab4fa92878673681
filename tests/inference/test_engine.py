"""The engine against the model run over the whole sequence for every token."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.inference.config import EngineConfig, SamplingConfig
from aya_jax.inference.engine import Engine, TokenRequest, slots_for
from aya_jax.kernels.attention import cached
from aya_jax.models.transformer import Transformer
from tests import eight_devices
from tools.make_golden_logits import CONFIGS, convert, torch_model

GREEDY = SamplingConfig(max_tokens=12, temperature=0.0)
SAMPLED = SamplingConfig(max_tokens=12, temperature=1.0, top_k=30, seed=5, log_probs=0)
SHAPE = EngineConfig(slots=3, max_length=120, prefill_chunk=32, decode_steps=4)


def wide_params(model, seed=0):
    """Random parameters large enough that different tokens have clearly different logits."""
    params = model.init(jax.random.key(seed))
    return jax.tree.map(lambda array: array * 8 if array.ndim >= 3 else array, params)


@pytest.fixture(scope="module")
def model():
    return Transformer(CONFIGS["cohere2"])


@pytest.fixture(scope="module")
def params(model):
    return wide_params(model)


@pytest.fixture(scope="module")
def shared(model, params):
    """One engine for tests that leave it empty."""
    return Engine(model, params, SHAPE)


@pytest.fixture
def small_rings(monkeypatch):
    """Rings of 48 places instead of 128, so that short sequences go round."""
    monkeypatch.setattr(cached, "_ROUND", 16)
    monkeypatch.setattr(cached, "block_size", lambda size: 16)


def prompts(*lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 96, length).tolist() for length in lengths]


def finish(engine, *requests):
    """Everything that came of the requests: (tokens, finish reason, prompt) of each."""
    outcomes = [{"tokens": [], "reason": None, "prompt": ()} for _ in requests]
    for request, outcome in zip(requests, outcomes, strict=True):

        def listen(progress, outcome=outcome):
            outcome["tokens"] += progress.tokens
            outcome["reason"] = progress.finish_reason
            outcome["prompt"] = progress.prompt or outcome["prompt"]

        engine.submit(request, listen)
    while engine.step():
        pass
    assert engine.stats.running == engine.stats.waiting == 0
    return outcomes


def ids(outcome):
    return [token.id for token in outcome["tokens"]]


def one_by_one(model, params, prompt, count):
    """Greedy decoding that runs the whole sequence for every token."""
    apply = jax.jit(lambda tokens: model.logits(params, {"tokens": tokens}))
    tokens = np.zeros((1, 120), np.int32)
    tokens[0, : len(prompt)] = prompt
    for at in range(len(prompt), len(prompt) + count):
        tokens[0, at] = int(jnp.argmax(apply(tokens)[0, at - 1]))
    return tokens[0, len(prompt) : len(prompt) + count].tolist()


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 16), st.sampled_from([1, 2, 3, 4, 16]))
@example(80, 64, 1)
def test_fewer_slots_take_no_more_rounds(samples, per_part, parts):
    most = per_part * parts
    slots = slots_for(samples, most, parts)
    assert slots <= most
    assert slots % parts == 0
    assert -(-samples // slots) == -(-samples // most)
    if most % 8 == 0 and 8 % parts == 0:
        assert slots < 8 + -(-samples // -(-samples // most))


def test_an_engine_for_few_samples_has_few_slots(model, params):
    engine = Engine(model, params, dataclasses.replace(SHAPE, slots=64, prefill_rows=16), samples=5)
    assert engine.config.slots == engine.config.prefill_rows == 8
    (found,) = finish(engine, TokenRequest(prompt=prompts(20)[0], sampling=GREEDY))
    assert ids(found) == one_by_one(model, params, prompts(20)[0], 12)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_tokens_are_those_of_the_whole_sequence(name, small_rings):
    """More prompts than slots; of one chunk, of several, and beyond the sliding window's ring."""
    model = Transformer(CONFIGS[name])
    params = wide_params(model)
    given = prompts(1, 20, 33, 70)
    engine = Engine(model, params, SHAPE)
    outcomes = finish(engine, *(TokenRequest(prompt=prompt, sampling=GREEDY) for prompt in given))
    for prompt, outcome in zip(given, outcomes, strict=True):
        assert ids(outcome) == one_by_one(model, params, prompt, 12)
        assert outcome["reason"] == "length"


def test_log_probs_are_those_of_the_whole_sequence(model, params, shared):
    sampling = dataclasses.replace(SAMPLED, log_probs=3, prompt_log_probs=True)
    (prompt,) = prompts(45)
    (outcome,) = finish(shared, TokenRequest(prompt=prompt, sampling=sampling))
    whole = prompt + ids(outcome)
    expected = np.asarray(jax.nn.log_softmax(model.logits(params, {"tokens": np.asarray([whole])})[0], axis=-1))
    assert [token.id for token in outcome["prompt"]] == prompt
    assert outcome["prompt"][0].log_prob is None
    scored = [*outcome["prompt"][1:], *outcome["tokens"]]
    for at, token in enumerate(scored):
        assert token.log_prob == pytest.approx(expected[at, token.id], abs=1e-4)
        assert [other for other, _ in token.top] == np.argsort(-expected[at])[:3].tolist()
        np.testing.assert_allclose([value for _, value in token.top], -np.sort(-expected[at])[:3], atol=1e-4)


def test_neighbours_change_no_bit(model, params):
    """Beside prompts of all lengths, asking for other things, and alone in an engine of its own."""
    first, *others = prompts(40, 3, 90, 33, 17, seed=1)
    request = TokenRequest(prompt=first, sampling=SAMPLED)
    (alone,) = finish(Engine(model, params, SHAPE), request)
    busy = [
        SAMPLED,
        GREEDY,
        dataclasses.replace(SAMPLED, repetition_penalty=1.5, seed=9),
        dataclasses.replace(SAMPLED, top_p=0.5),
    ]
    crowd = [TokenRequest(prompt=prompt, sampling=sampling) for prompt, sampling in zip(others, busy, strict=True)]
    engine = Engine(model, params, SHAPE)
    *_, last = finish(engine, *crowd, request)
    assert last["tokens"] == alone["tokens"]  # log-probabilities and all
    other_seed = dataclasses.replace(SAMPLED, seed=6)
    assert finish(engine, TokenRequest(prompt=first, sampling=other_seed))[0]["tokens"] != alone["tokens"]


def test_a_prefix_that_a_slot_holds_is_not_read_again_and_changes_no_bit(model, params, small_rings):
    (begin,) = prompts(70)
    requests = [TokenRequest(prompt=begin + end, sampling=SAMPLED) for end in prompts(5, 20, seed=2)]
    engine = Engine(model, params, SHAPE)
    first, second = finish(engine, requests[0])[0], finish(engine, requests[1])[0]
    fresh = [finish(Engine(model, params, SHAPE), request)[0] for request in requests]
    assert [first, second] == fresh
    assert engine.stats.reused_tokens == 64  # two chunks of 32
    engine.load(params)
    finish(engine, requests[1])
    assert engine.stats.reused_tokens == 64, "a prompt of other weights was used"


def test_samples_of_one_prompt_read_it_once(model, params, shared):
    (prompt,) = prompts(50)
    engine = Engine(model, params, SHAPE)
    outcomes = finish(engine, *(TokenRequest(prompt=prompt, sampling=SAMPLED, number=n) for n in range(3)))
    assert engine.stats.prompt_tokens == 50
    alone = [finish(shared, TokenRequest(prompt=prompt, sampling=SAMPLED, number=n))[0] for n in range(3)]
    assert [ids(outcome) for outcome in outcomes] == [ids(outcome) for outcome in alone]
    assert len({tuple(ids(outcome)) for outcome in outcomes}) == 3


def test_stop_tokens_and_the_longest_sequence_end_a_sample(shared):
    (prompt,) = prompts(20)
    (free,) = finish(shared, TokenRequest(prompt=prompt, sampling=GREEDY))
    stop = ids(free)[4]
    (outcome,) = finish(shared, TokenRequest(prompt=prompt, sampling=GREEDY, stop_ids=frozenset({stop, 2})))
    assert ids(outcome) == ids(free)[: ids(free).index(stop) + 1]
    assert outcome["reason"] == "stop"
    (long,) = prompts(117)
    (outcome,) = finish(shared, TokenRequest(prompt=long, sampling=GREEDY))
    assert (len(outcome["tokens"]), outcome["reason"]) == (3, "length")


def test_a_cancelled_sample_frees_its_slot(shared):
    told = []
    running, waiting = (
        shared.submit(TokenRequest(prompt=prompt, sampling=GREEDY), told.append) for prompt in prompts(5, 6)
    )
    shared.step()
    count = len(told)
    for sample in (running, waiting, running):
        shared.cancel(sample)
    while shared.step():
        pass
    assert shared.stats.running == shared.stats.waiting == 0
    assert len(told) == count


def test_other_weights_give_other_tokens(model, params):
    (prompt,) = prompts(20)
    engine = Engine(model, params, SHAPE)
    (before,) = finish(engine, TokenRequest(prompt=prompt, sampling=GREEDY))
    other = wide_params(model, seed=1)
    engine.load(other)
    (after,) = finish(engine, TokenRequest(prompt=prompt, sampling=GREEDY))
    assert ids(after) == one_by_one(model, other, prompt, 12) != ids(before)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "empty"),
        ([5] * 120, "120 tokens long, and the engine takes 120"),
        ([96], "outside the model's vocabulary of 96"),
    ],
)
def test_what_cannot_be_served_is_refused(shared, prompt, message):
    with pytest.raises(UserError, match=message):
        shared.submit(TokenRequest(prompt=prompt, sampling=GREEDY), print)


@pytest.mark.parametrize("names", [("fsdp and tensor",), pytest.param(("tensor", "heads"), marks=pytest.mark.slow)])
def test_a_mesh_gives_the_tokens_of_one_device(names):
    printed = eight_devices.run("-m", "tests.inference.emulated_engine", *names)
    one, *meshes = (json.loads(line) for line in printed.splitlines())
    assert [mesh["mesh"] for mesh in meshes] == list(names)
    for mesh in meshes:
        assert mesh["tokens"] == one["tokens"], mesh["mesh"]
        np.testing.assert_allclose(np.concatenate(mesh["log_probs"]), np.concatenate(one["log_probs"]), atol=2e-5)


@pytest.mark.parity
@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_tokens_are_those_of_transformers(name, penalty):
    import torch

    network = torch_model(name)
    network.generation_config.eos_token_id = None  # go on after it, as the engine does without stop tokens
    params = jax.tree.map(jnp.asarray, convert(network.state_dict(), CONFIGS[name]))
    engine = Engine(Transformer(CONFIGS[name]), params, SHAPE)
    sampling = SamplingConfig(max_tokens=30, temperature=0.0, repetition_penalty=penalty)
    given = prompts(5, 40, 17, 70, 33, 1)
    outcomes = finish(engine, *(TokenRequest(prompt=prompt, sampling=sampling) for prompt in given))
    for prompt, outcome in zip(given, outcomes, strict=True):
        options = {"max_new_tokens": 30, "do_sample": False, "repetition_penalty": penalty}
        theirs = network.generate(torch.tensor([prompt]), **options)
        assert ids(outcome) == theirs[0, len(prompt) :].tolist()
