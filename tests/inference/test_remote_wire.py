"""Bodies and answers, against what the references of OpenAI's API and of vLLM's server show."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Request, Token
from aya_jax.inference.remote_config import RemoteModelConfig
from aya_jax.inference.remote_wire import BadAnswer, body_of, clip, decode, error_message, response_of
from tests.inference.remote_endpoint import chat

CHAT = (Message("system", "Be brief."), Message("user", "Γειά σου;"))


def config(**fields):
    return RemoteModelConfig(base_url="http://h/v1", model="m", **fields)


def request(prompt=CHAT, **sampling):
    return Request(id="r1", prompt=prompt, sampling=SamplingConfig(**sampling))


def test_a_chat_body():
    assert body_of(request(), config()) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Γειά σου;"}],
        "max_tokens": 256,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 0,
    }


def test_everything_that_openai_can_say():
    body = body_of(
        request(max_tokens=5, temperature=0.0, top_p=0.5, seed=3, n=2, stop=("a", "b"), log_probs=4),
        config(max_tokens_field="max_completion_tokens"),
    )
    del body["messages"]
    assert body == {
        "model": "m",
        "max_completion_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 3,
        "n": 2,
        "stop": ["a", "b"],
        "logprobs": True,
        "top_logprobs": 4,
    }


def test_everything_that_vllm_can_say():
    body = body_of(
        request(
            prompt=(5, 6), top_k=9, min_p=0.1, repetition_penalty=1.2, stop_ids=(1, 2), ignore_stop_tokens=True,
            log_probs=0, prompt_log_probs=True,
        ),
        config(endpoint="completions", dialect="vllm"),
    )  # fmt: skip
    assert body == {
        "model": "m",
        "prompt": [5, 6],
        "max_tokens": 256,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 0,
        "top_k": 9,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "stop_token_ids": [1, 2],
        "ignore_eos": True,
        "logprobs": 0,
        "prompt_logprobs": 0,
    }


def test_in_the_vllm_dialect_a_models_own_defaults_do_not_act():
    body = body_of(request(prompt="Once"), config(endpoint="completions", dialect="vllm"))
    assert (body["prompt"], body["top_k"], body["min_p"], body["repetition_penalty"]) == ("Once", 0, 0.0, 1.0)


def test_extra_fields_and_fields_left_out():
    body = body_of(request(), config(extra_body={"seed": None, "safety_mode": "NONE"}))
    assert "seed" not in body
    assert body["safety_mode"] == "NONE"


@pytest.mark.parametrize(
    ("prompt", "sampling", "fields", "parts"),
    [
        ("text", {}, {}, ("prompt", "endpoint = 'completions'")),
        ((1, 2), {}, {}, ("prompt", "token ids", "endpoint = 'completions'")),
        (CHAT, {}, {"endpoint": "completions"}, ("prompt", "endpoint = 'chat'")),
        ("", {}, {"endpoint": "completions"}, ("prompt", "nothing")),
        ((), {}, {}, ("prompt", "nothing")),
        (CHAT, {"top_k": 5}, {}, ("sampling.top_k", "dialect = 'vllm'")),
        (CHAT, {"min_p": 0.5}, {}, ("sampling.min_p", "dialect")),
        (CHAT, {"repetition_penalty": 1.1}, {}, ("sampling.repetition_penalty", "dialect")),
        (CHAT, {"stop_ids": (1,)}, {}, ("sampling.stop_ids", "dialect")),
        (CHAT, {"ignore_stop_tokens": True}, {}, ("sampling.ignore_stop_tokens", "dialect")),
        (CHAT, {"prompt_log_probs": True}, {}, ("sampling.prompt_log_probs", "dialect")),
    ],
)
def test_what_cannot_be_said_is_refused(prompt, sampling, fields, parts):
    with pytest.raises(UserError) as raised:
        body_of(request(prompt, **sampling), config(**fields))
    assert all(part in str(raised.value) for part in ("'r1'", *parts))


def test_no_field_of_sampling_is_forgotten():
    """Each field that is changed alone changes the body, in the dialect that can say everything."""
    changed = {
        "max_tokens": 1, "temperature": 0.1, "top_k": 1, "top_p": 0.1, "min_p": 0.1, "repetition_penalty": 2.0,
        "seed": 1, "n": 2, "stop": ("x",), "stop_ids": (1,), "ignore_stop_tokens": True, "log_probs": 0,
        "prompt_log_probs": True,
    }  # fmt: skip
    assert set(changed) == set(SamplingConfig.__dataclass_fields__)
    for endpoint, prompt in (("chat", CHAT), ("completions", "x")):
        called = config(endpoint=endpoint, dialect="vllm")
        plain = body_of(request(prompt), called)
        for name, value in changed.items():
            assert body_of(request(prompt, **{name: value}), called) != plain, name


# Answers -------------------------------------------------------------------------------------------------------------


def choice(text, index, **fields):
    return {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **fields}


def test_samples_come_in_the_order_of_their_numbers():
    answer = chat("", choices=[choice("b", 1), choice("a", 0), choice("c", 2)])
    response = response_of(request(n=3), answer, config())
    assert [completion.text for completion in response.completions] == ["a", "b", "c"]
    assert response.prompt_tokens == 7


def test_log_probabilities_of_chat():
    place = {
        "token": " hi",
        "logprob": -0.5,
        "bytes": [32, 104, 105],
        "top_logprobs": [
            {"token": " ho", "logprob": -1.5, "bytes": None},
            {"token": " hi", "logprob": -0.5, "bytes": None},
        ],
    }
    answer = chat("", choices=[choice(" hi", 0, logprobs={"content": [place], "refusal": None})])
    both = Token(id=None, text=" hi", log_prob=-0.5, top=((None, " hi", -0.5), (None, " ho", -1.5)))
    assert response_of(request(log_probs=2), answer, config()).completions[0].tokens == (both,)
    one = Token(id=None, text=" hi", log_prob=-0.5, top=((None, " hi", -0.5),))
    assert response_of(request(log_probs=1), answer, config()).completions[0].tokens == (one,)
    assert response_of(request(log_probs=0), answer, config()).completions[0].tokens[0].top == ()


def completion(**fields):
    return {
        "choices": [{"index": 0, "text": " a b", "finish_reason": "length", **fields}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 2},
    }


def test_log_probabilities_of_completions():
    log_probs = {
        "tokens": [" a", " b"],
        "token_logprobs": [-0.1, -2.0],
        "top_logprobs": [{" a": -0.1}, {" c": -1.0, " b": -2.0}],
        "text_offset": [0, 2],
    }
    asked, answer = request("x", log_probs=1), completion(logprobs=log_probs)
    response = response_of(asked, answer, config(endpoint="completions"))
    assert response.completions[0].text == " a b"
    assert response.completions[0].finish_reason == "length"
    assert response.completions[0].tokens == (
        Token(id=None, text=" a", log_prob=-0.1, top=((None, " a", -0.1),)),
        Token(id=None, text=" b", log_prob=-2.0, top=((None, " c", -1.0),)),
    )
    answer = completion(logprobs={**log_probs, "top_logprobs": None})
    tokens = response_of(asked, answer, config(endpoint="completions")).completions[0].tokens
    assert [token.top for token in tokens] == [(), ()]


@pytest.mark.parametrize("where", ["answer", "choice"])
def test_log_probabilities_of_the_prompt(where):
    places = [
        None,
        {
            "17": {"logprob": -3.0, "rank": 5, "decoded_token": " b"},
            "4": {"logprob": -0.2, "rank": 1, "decoded_token": "x"},
        },
    ]
    answer = completion(logprobs={"tokens": [], "token_logprobs": [], "top_logprobs": []})
    (answer if where == "answer" else answer["choices"][0])["prompt_logprobs"] = places
    asked = request("ab", log_probs=1, prompt_log_probs=True)
    response = response_of(asked, answer, config(endpoint="completions", dialect="vllm"))
    assert response.prompt == (
        Token(id=None, text=""),
        Token(id=17, text=" b", log_prob=-3.0, top=((4, "x", -0.2),)),
    )


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (completion(), "no log-probabilities"),
        (completion(logprobs={"tokens": ["a"], "token_logprobs": [], "top_logprobs": None}), "unequal length"),
        (completion(logprobs={"tokens": ["a"], "token_logprobs": [None]}), "no number"),
        (completion(logprobs={"tokens": ["a"], "token_logprobs": [True]}), "no number"),
        (completion(logprobs={"tokens": ["a"], "token_logprobs": [-(10**400)]}), "no number"),
        (completion(logprobs={"tokens": ["a"], "token_logprobs": [float("-inf")]}), "no number"),
        (completion(logprobs={"tokens": [5], "token_logprobs": [-1.0]}), "no str"),
    ],
)
def test_log_probabilities_that_are_not_there(answer, part):
    with pytest.raises(BadAnswer, match=part):
        response_of(request("x", log_probs=1), answer, config(endpoint="completions"))


def test_a_refusal_is_shown():
    refused = choice(None, 0)
    refused["message"]["refusal"] = "I cannot help"
    with pytest.raises(BadAnswer, match="a refusal: I cannot help"):
        response_of(request(), chat("", choices=[refused]), config())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = st.sampled_from(
    [
        ("choices",), ("usage",), ("choices", 0), ("choices", 0, "message"), ("choices", 0, "message", "content"),
        ("choices", 0, "finish_reason"), ("choices", 0, "index"), ("choices", 0, "logprobs"), ("prompt_logprobs",),
        ("choices", 0, "logprobs", "content"), ("choices", 0, "logprobs", "content", 0), ("prompt_logprobs", 0),
        ("choices", 0, "logprobs", "content", 0, "top_logprobs"), ("usage", "prompt_tokens"), ("error",),
        ("choices", 0, "logprobs", "content", 0, "logprob"), ("choices", 0, "logprobs", "content", 0, "token"),
    ]
)  # fmt: skip


@settings(deadline=None)
@given(place=PLACES, value=JSON)
def test_any_value_anywhere_is_an_answer_or_a_bad_one(place, value):
    """Nothing but BadAnswer comes of an answer that is odd in one place."""
    content = [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]}]
    answer = chat("", choices=[choice("a", 0, logprobs={"content": content})])
    answer["prompt_logprobs"] = [None, {"5": {"logprob": -1.0, "decoded_token": "x"}}]
    inner = answer
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    asked, called = request(log_probs=1, prompt_log_probs=True), config(dialect="vllm")
    try:
        response = response_of(asked, decode(json.dumps(answer).encode(), "application/json"), called)
    except BadAnswer:
        return
    assert len(response.completions) == 1
    assert isinstance(response.completions[0].text, str)
    assert isinstance(response.prompt_tokens, int)


@given(content=st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_bad_answer(content):
    try:
        answer = decode(content, "text/plain")
    except BadAnswer:
        answer = {}
    assert isinstance(answer, dict)


def test_deep_json_is_a_bad_answer():
    with pytest.raises(BadAnswer):
        decode(b'{"a":' * 100_000, "application/json")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"error": {"message": "m", "code": 1}}, "m"),
        ({"error": "text"}, "text"),
        ({"error": {"code": 5}}, '{"code": 5}'),
        ({"message": "cohere"}, "cohere"),
        ({"detail": "fastapi"}, "fastapi"),
        ({"detail": [{"loc": ["body"]}]}, '[{"loc": ["body"]}]'),
        ("text", "text"),
        (None, "null"),
    ],
)
def test_what_an_error_says(answer, message):
    assert error_message(answer) == message


def test_messages_are_clipped_to_a_line():
    assert clip("a\n b") == "a b"
    assert len(clip("x" * 10_000)) < 320
