"""Texts around the engine, with a vocabulary of bytes and a small random model."""

from __future__ import annotations

import dataclasses
import threading

import jax
import pytest

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.inference.config import EngineConfig, SamplingConfig
from aya_jax.inference.engine import Engine
from aya_jax.inference.local import LocalGenerator
from aya_jax.inference.protocol import Request
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from tests.inference.test_engine import wide_params
from tools.make_golden_logits import CONFIGS

SAMPLING = SamplingConfig(max_tokens=20, seed=3, log_probs=0, ignore_stop_tokens=True)


@pytest.fixture(scope="module")
def generator():
    mesh = make_mesh(MeshConfig(fsdp=1))
    model = Transformer(dataclasses.replace(CONFIGS["cohere"], vocab_size=259))
    with jax.set_mesh(mesh):
        engine = Engine(
            model, wide_params(model), EngineConfig(slots=3, max_length=100, prefill_chunk=16, decode_steps=3)
        )
    with LocalGenerator(engine, ChatTokenizer.open("bytes"), mesh, "small", lambda: "digest") as generator:
        yield generator


def request(number, prompt="some text", **changes):
    return Request(id=f"r{number}", prompt=f"{prompt} {number}", sampling=dataclasses.replace(SAMPLING, **changes))


def answers(generator, requests):
    return {response.id: response for response in generator.generate(requests)}


def test_every_request_is_answered_as_it_would_be_alone(generator):
    requests = [request(n, max_tokens=3 + n, n=1 + n % 2) for n in range(8)]
    together = answers(generator, iter(requests))
    assert together == {r.id: answers(generator, [r])[r.id] for r in reversed(requests)}
    for n, asked in enumerate(requests):
        response = together[asked.id]
        assert response.prompt_tokens == 1 + len(asked.prompt)
        assert [len(completion.tokens) for completion in response.completions] == [3 + n] * (1 + n % 2)
        for completion in response.completions:
            assert completion.text == generator.tokenizer.decode(token.id for token in completion.tokens)
    assert generator.stats().running == 0


def test_a_stop_string_ends_a_text_before_it(generator):
    (whole,) = answers(generator, [request(0, max_tokens=60)])["r0"].completions
    stop = whole.text[7:10]
    (cut,) = answers(generator, [request(0, max_tokens=60, stop=("never", stop))])["r0"].completions
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert len(cut.tokens) < 60


def test_a_stop_token_is_given_and_leaves_no_text(generator):
    (whole,) = answers(generator, [request(0)])["r0"].completions
    stop = whole.tokens[5].id
    (cut,) = answers(generator, [request(0, stop_ids=(stop,))])["r0"].completions
    first = next(place for place, token in enumerate(whole.tokens) if token.id == stop)
    assert [token.id for token in cut.tokens] == [token.id for token in whole.tokens[: first + 1]]
    assert cut.text == generator.tokenizer.decode(token.id for token in whole.tokens[:first])


def test_deltas_make_the_text_and_cancelling_ends_them(generator):
    deltas, done = [], threading.Event()

    def listen(delta):
        deltas.append(delta)
        if delta.finish_reason:
            done.set()

    job = generator.start(request(0, max_tokens=20, prompt_log_probs=True), listen)
    assert done.wait(60)
    (whole,) = answers(generator, [request(0)])["r0"].completions
    assert "".join(delta.text for delta in deltas) == whole.text
    assert len(deltas[0].prompt) == job.prompt_tokens
    done.clear()
    deltas.clear()
    generator.start(request(0, max_tokens=80), listen).cancel()
    assert done.wait(60)
    assert deltas[-1].finish_reason == "cancelled"
    assert generator.call(lambda: generator.stats().running) == 0


def test_a_listener_that_fails_ends_its_own_job_alone(generator):
    def fail(delta):
        raise RuntimeError("a client has gone")

    generator.start(request(0, max_tokens=80), fail)
    assert len(answers(generator, [request(1)])) == 1
    assert generator.call(lambda: generator.stats().running) == 0


def test_leaving_early_frees_the_slots(generator):
    for _ in generator.generate(request(n, max_tokens=80) for n in range(10_000)):
        break
    assert generator.call(lambda: generator.stats().running + generator.stats().waiting) == 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Request(id="x", prompt=(5,) * 100), "request 'x': the prompt is 100 tokens long"),
        (Request(id="x", prompt=(Message("user", "hi"),)), "request 'x': bytes: this tokenizer has no chat template"),
    ],
)
def test_what_cannot_be_served_names_the_request(generator, asked, message):
    with pytest.raises(UserError, match=message):
        list(generator.generate([asked]))


def test_other_weights_take_effect_between_requests(generator):
    before = answers(generator, [request(0)])
    model = Transformer(dataclasses.replace(CONFIGS["cohere"], vocab_size=259))
    original = wide_params(model)
    generator.load(wide_params(model, seed=1))
    assert answers(generator, [request(0)]) != before
    generator.load(original)
    assert answers(generator, [request(0)]) == before
