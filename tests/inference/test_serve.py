"""`aya serve` through OpenAI's own client and through raw sockets, before an engine with a small random model."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import openai
import pytest

from aya_jax.config import ConfigError, resolve
from aya_jax.data.chat import Message
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Request
from aya_jax.inference.serve_config import ServeConfig
from tests.inference.serving import SLOTS, engine, raw_request, served
from tools.random_model import shape, write_random_model

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "مرحبا"}]}]
LONG = {"model": "tiny", "prompt": "Once", "max_tokens": 400, "ignore_eos": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("tiny"), shape())


@pytest.fixture(scope="module")
def generator(folder):
    with engine(folder) as generator:
        yield generator


@pytest.fixture(scope="module")
def server(generator):
    with served(generator) as running:
        yield running


def alone(generator, prompt, **sampling):
    (response,) = generator.generate([Request(id="one", prompt=prompt, sampling=SamplingConfig(**sampling))])
    return response


def test_a_chat_is_what_the_generator_says(server, generator):
    asked = {
        "model": "tiny",
        "messages": CHAT,
        "max_tokens": 12,
        "seed": 5,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
    }
    answer = server.client().chat.completions.create(**asked)
    turns = (Message("system", "Be kind."), Message("user", "مرحبا"))
    expected = alone(generator, turns, max_tokens=12, seed=5, n=2, log_probs=3)
    assert answer.object == "chat.completion"
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice, completion in zip(answer.choices, expected.completions, strict=True):
        assert choice.message.content == completion.text
        assert choice.message.role == "assistant"
        assert choice.finish_reason == completion.finish_reason
        assert [each.logprob for each in choice.logprobs.content] == [t.log_prob for t in completion.tokens]
        for each, token in zip(choice.logprobs.content, completion.tokens, strict=True):
            assert [top.logprob for top in each.top_logprobs] == [value for *_, value in token.top]
            assert each.bytes is None or bytes(each.bytes).decode() == each.token
    made = sum(len(completion.tokens) for completion in expected.completions)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (expected.prompt_tokens, made)


def test_a_stream_adds_up_to_the_whole(server):
    asked = {
        "model": "tiny",
        "messages": CHAT,
        "max_tokens": 40,
        "seed": 2,
        "n": 3,
        "logprobs": True,
        "temperature": 0.7,
    }
    whole = server.client().chat.completions.create(**asked)
    texts, scores, ends = [""] * 3, [[] for _ in range(3)], [None] * 3
    usage = None
    for chunk in server.client().chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked):
        assert chunk.object == "chat.completion.chunk"
        usage = chunk.usage or usage
        for choice in chunk.choices:
            assert (choice.delta.role == "assistant") == (not scores[choice.index])
            texts[choice.index] += choice.delta.content
            scores[choice.index] += [each.logprob for each in choice.logprobs.content]
            ends[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert scores == [[each.logprob for each in choice.logprobs.content] for choice in whole.choices]
    assert usage == whole.usage


def test_completions_of_several_prompts_in_every_form(server, generator):
    """Texts, ids; each prompt's samples in order, and the prompts' own scores with echo."""
    ids = generator.tokenizer.encode_text("two words")
    asked = {"model": "tiny", "max_tokens": 5, "seed": 1, "n": 2, "logprobs": 2, "echo": True}
    texts = server.client().completions.create(prompt=["one", "two words"], **asked)
    assert [choice.index for choice in texts.choices] == [0, 1, 2, 3]
    same = server.client().completions.create(prompt=[ids], **asked)
    expected = alone(generator, tuple(ids), max_tokens=5, seed=1, n=2, log_probs=2, prompt_log_probs=True)
    for choice, by_ids, completion in zip(texts.choices[2:], same.choices, expected.completions, strict=True):
        assert choice.text == "two words" + completion.text
        tokens = (*expected.prompt, *completion.tokens)
        assert choice.logprobs.tokens == [token.text for token in tokens]
        assert choice.logprobs.token_logprobs == [token.log_prob for token in tokens]
        assert by_ids.logprobs == choice.logprobs
    alone_with_echo = server.client().completions.create(
        model="tiny", prompt="two words", max_tokens=0, echo=True, logprobs=1
    )
    (choice,) = alone_with_echo.choices
    assert choice.text == "two words"
    assert choice.logprobs.token_logprobs == [token.log_prob for token in expected.prompt]
    assert alone_with_echo.usage.completion_tokens == 0


def test_stop_strings_and_seeds(server):
    client, asked = server.client(), {"model": "tiny", "prompt": "Once", "max_tokens": 60, "seed": 9}
    text = client.completions.create(**asked).choices[0].text
    stop = text[10:12]
    (choice,) = client.completions.create(stop=[stop, "never ever"], **asked).choices
    assert choice.text == text[: text.index(stop)]
    assert choice.finish_reason == "stop"
    unseeded = {client.completions.create(**asked | {"seed": None}).choices[0].text for _ in range(3)}
    assert len(unseeded) == 3
    greedy = {client.completions.create(**asked | {"seed": None, "temperature": 0}).choices[0].text for _ in range(2)}
    assert len(greedy) == 1


def test_without_max_tokens_a_chat_goes_to_the_end_of_the_context(server, generator):
    body = {"ignore_eos": True}
    answer = server.client().chat.completions.create(model="tiny", messages=CHAT, extra_body=body)
    assert answer.usage.total_tokens == generator.max_length
    assert answer.choices[0].finish_reason == "length"


def test_models(server, generator):
    (model,) = server.client().models.list().data
    assert (model.id, model.max_model_len) == ("tiny", generator.max_length)
    assert server.client().models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        server.client().models.retrieve("other")


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "message"),
    [
        ("completions", b"{", 400, None, "not JSON"),
        ("completions", b"[]", 400, None, "not an object"),
        ("completions", b'{"model": NaN}', 400, None, "NaN"),
        ("completions", b"[" * 100_000, 400, None, "not JSON"),
        ("completions", {"prompt": "a"}, 400, "model", "missing"),
        ("completions", {"model": "other", "prompt": "a"}, 404, "model", "'tiny'"),
        ("completions", {"model": "tiny", "prompt": "a", "temperatur": 1}, 400, "temperatur", "no such field"),
        ("completions", {"model": "tiny", "prompt": "a", "temperature": -1}, 400, "temperature", "greater"),
        ("completions", {"model": "tiny", "prompt": "a", "temperature": "1"}, 400, "temperature", "number"),
        ("completions", {"model": "tiny", "prompt": "a", "max_tokens": 0}, 400, "max_tokens", "echo"),
        ("completions", {"model": "tiny", "prompt": "a", "n": 65}, 400, "n", "at most 64"),
        ("completions", {"model": "tiny", "prompt": "a", "best_of": 2}, 400, "best_of", "best"),
        ("completions", {"model": "tiny", "prompt": "a", "stop": [""]}, 400, "stop", "at least one character"),
        ("completions", {"model": "tiny", "prompt": "a", "presence_penalty": 0.5}, 400, "presence_penalty", "cannot"),
        ("completions", {"model": "tiny", "prompt": "a", "logprobs": 21}, 400, "logprobs", "less"),
        ("completions", {"model": "tiny", "prompt": []}, 400, "prompt", "nothing"),
        ("completions", {"model": "tiny", "prompt": [[]]}, 400, "prompt", "nothing"),
        ("completions", {"model": "tiny", "prompt": [1, 99999]}, 400, None, "vocabulary of 340"),
        ("completions", {"model": "tiny", "prompt": "a " * 600}, 400, "prompt", "the context is 512"),
        ("completions", {"model": "tiny", "prompt": "a", "max_tokens": 512}, 400, "prompt", "max_tokens is 512"),
        ("chat/completions", {"model": "tiny", "messages": []}, 400, "messages", "at least 1"),
        ("chat/completions", {"model": "tiny", "messages": [{"role": "x", "content": ""}]}, 400, "messages[0].role", "'user'"),
        (
            "chat/completions",
            {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            400,
            "messages[0].content[0]",
            "",
        ),
        ("chat/completions", {"model": "tiny", "messages": CHAT, "tools": [{"type": "function"}]}, 400, "tools", "cannot"),
        ("chat/completions", {"model": "tiny", "messages": CHAT, "top_logprobs": 2}, 400, "top_logprobs", "logprobs: true"),
        ("chat/completions", {"model": "tiny", "messages": CHAT, "stream_options": {}}, 400, "stream_options", "stream: true"),
        ("embeddings", {}, 404, None, "Not Found"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_in_openai_s_form(server, path, body, status, param, message):
    answer = server.post(path, body)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] is param or error["param"].startswith(param)
    assert message in error["message"]
    assert "Traceback" not in answer.text
    assert answer.headers["x-request-id"]


def test_fields_that_ask_for_nothing_are_taken(server):
    neutral = {
        "presence_penalty": 0,
        "logit_bias": {},
        "tools": [],
        "user": "me",
        "top_k": 0,
        "min_p": 0.0,
        "store": False,
    }
    body = {"model": "tiny", "messages": CHAT, "max_tokens": 2, "response_format": {"type": "text"}, **neutral}
    assert server.post("chat/completions", body).status_code == 200


def test_a_key(generator):
    with served(generator, key="secret") as running:
        asked = {"model": "tiny", "prompt": "a", "max_tokens": 1}
        assert running.client().completions.create(**asked).choices
        with pytest.raises(openai.AuthenticationError):
            running.client(key="guess").completions.create(**asked)
        assert running.post("completions", asked).status_code == 401
        assert (
            running.post("completions", asked, headers={"authorization": "Bearer sécret".encode()}).status_code == 401
        )
        assert httpx.get(f"{running.url}/models").status_code == 401
        assert httpx.get(f"http://127.0.0.1:{running.port}/health").status_code == 200


def test_whoever_leaves_frees_the_slot(generator):
    """While a stream is read, before a whole answer, and while the body is sent; long before the samples would be done."""
    with served(generator) as running:
        before = generator.stats().generated_tokens
        for n, body in enumerate([LONG | {"stream": True, "n": 8}, LONG | {"n": 8}]):
            connection = running.send_raw(raw_request(body))
            if body.get("stream"):
                assert connection.recv(50).startswith(b"HTTP/1.1 200")
            else:
                _wait(lambda: generator.stats().running == SLOTS)
            connection.close()
            running.wait_until_idle()
            assert generator.stats().generated_tokens - before < 8 * 400 * (n + 1)
        connection = running.send_raw(raw_request(LONG, length=100_000))
        _wait(lambda: running.state.open_requests == 1)
        connection.close()
        running.wait_until_idle()
        assert 'reason="disconnected"} 2.0' in running.metrics()
        assert running.post("completions", LONG | {"max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("kernel", [True, False])
def test_a_client_that_does_not_read_is_cut_off(generator, monkeypatch, kernel):
    """By the server, and where it can by the kernel too. Its socket takes 4 KiB; the answer is many megabytes."""
    if not kernel:
        monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    with served(generator, write_seconds=0.3) as running:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", running.port))
        body = LONG | {"stream": True, "n": 64, "logprobs": 20, "max_tokens": 500}
        connection.sendall(raw_request(body))
        reason = "unread" if not kernel else ""
        _wait(lambda: f'aya_cancelled_total{{reason="{reason}' in running.metrics(), seconds=60)
        running.wait_until_idle()
        assert "aya_running_samples 0.0" in running.metrics()
        connection.close()


def test_slow_and_large_bodies_are_refused(generator):
    with served(generator, body_seconds=0.3, body_bytes=2000) as running:
        with running.send_raw(raw_request(LONG, length=1000)) as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
        with running.send_raw(b"POST /v1/comp") as connection:  # and no more of the head
            assert connection.recv(1000) == b""
        for headers in ({}, {"transfer-encoding": "chunked"}):
            answer = running.post("completions", LONG | {"prompt": "a" * 3000}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        running.wait_until_idle()


def test_overload_is_told_at_once_and_passes(generator):
    with served(generator, waiting=4) as running:
        with httpx.stream("POST", f"{running.url}/completions", json=LONG | {"n": 8, "stream": True}, timeout=60):
            answer = running.post("completions", LONG)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert answer.json()["error"]["code"] == "overloaded"
        running.wait_until_idle()
        assert running.post("completions", LONG | {"max_tokens": 2}).status_code == 200


def test_time_is_limited(generator):
    with served(generator, request_seconds=0.05) as running:
        answer = running.post("completions", LONG | {"n": 16})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        text = running.post("completions", LONG | {"n": 16, "stream": True}).text
        assert '"code":"timeout"' in text
        assert "[DONE]" not in text
        running.wait_until_idle()


def test_a_failure_is_no_stack_trace_for_the_client(generator, monkeypatch):
    with served(generator) as running:
        monkeypatch.setattr(running.state, "admit", lambda asked: 1 / 0)
        answer = running.post("completions", LONG)
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
        assert "ZeroDivision" not in answer.text


def test_an_engine_that_dies_ends_the_server(folder):
    with engine(folder) as generator, served(generator) as running:
        with httpx.stream(
            "POST", f"{running.url}/completions", json=LONG | {"n": 16, "stream": True}, timeout=60
        ) as answer:
            generator._commands.put(lambda: 1 / 0)
            assert "engine_stopped" in "".join(answer.iter_text())
        _wait(lambda: not generator.alive)
        _wait(lambda: _gone(running.port))


def test_sigterm_lets_what_has_begun_finish(folder):
    command = [sys.executable, "-m", "aya_jax", "serve", f"--gin.MODEL_DIR={folder}", "--gin.ServeConfig.port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        first = process.stdout.readline()
        assert first.startswith(f"serving {folder.name} at http://127.0.0.1:"), first + process.stdout.read()
        url = first.split(" at ")[1].split(" ")[0]
        body = LONG | {"model": folder.name, "n": 4, "stream": True, "seed": 3}
        with httpx.stream("POST", f"{url}/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["choices"]
            process.send_signal(signal.SIGTERM)
            assert httpx.get(url.replace("/v1", "/health")).status_code == 503
            assert httpx.post(f"{url}/completions", json=body).json()["error"]["code"] == "draining"
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert sum('"finish_reason":"length"' in line for line in rest) == 4
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert said.endswith("good-bye\n")
    assert any(json.loads(line)["tokens"] == 1600 for line in said.splitlines() if '"tokens"' in line)


@pytest.mark.parametrize(
    ("bindings", "problem"),
    [
        (["ServeConfig.host=0.0.0.0"], "add --gin.API_KEY_FILE=FILE"),
        (["ServeConfig.port=70000"], "65535"),
        (["LimitsConfig.samples=0"], "a positive number"),
        (["MODEL_DIR="], "MODEL_DIR"),
    ],
)
def test_configurations_that_are_refused(bindings, problem):
    with pytest.raises(ConfigError, match=problem):
        resolve(ServeConfig, ["serve/base.gin"], ["MODEL_DIR=somewhere", *bindings])


def test_an_address_that_is_taken(folder, capsys):
    from aya_jax.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", f"--gin.MODEL_DIR={folder}", f"--gin.ServeConfig.port={port}"]) == 1
    assert f"127.0.0.1:{port}: cannot be listened on" in capsys.readouterr().err


def _gone(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code != 503
    except httpx.HTTPError:
        return True


def _wait(done, seconds=20):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
