"""A reward model behind an endpoint, with a stand-in that answers as vLLM's documentation shows."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.synthesis.config import RewardEndpointConfig
from aya_jax.synthesis.endpoint_scorer import EndpointScorer
from aya_jax.synthesis.scorers import Answer, open_scorer


class Endpoint(BaseHTTPRequestHandler):
    """Rewards an answer with its length; texts like "503" and "401" are answered by that status, "flaky" by 503 at first."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        self.server.seen[text] += 1
        self.server.bodies.append((self.path, self.headers.get("Authorization"), body))
        status = int(text) if text.isdigit() else 503 if text == "flaky" and self.server.seen[text] < 3 else 200
        reward = float(len(text))
        answers = {
            "/pooling": {"object": "pooling", "data": [[0.0], [0.5], [reward]]},
            "/classify": {"label": "LABEL_0", "probs": [reward], "num_classes": 1},
        }
        found = {"data": [answers[self.path]]}
        if text == "two labels":
            found["data"][0]["probs"] = [0.1, 0.9]
        if text == "nothing":
            found = {"object": "list"}
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        server.seen, server.bodies = Counter(), []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def scorer(server, pauses=None, **options):
    config = RewardEndpointConfig(base_url=f"http://127.0.0.1:{server.server_port}/", model="rm", **options)
    return EndpointScorer(config, sleep=(pauses if pauses is not None else []).append)


def answer(text):
    return Answer((Message("system", "Be brief."), Message("user", "Why?")), text, {})


@pytest.mark.parametrize("endpoint", ["pooling", "classify"])
def test_each_answer_has_its_reward_in_order(server, endpoint):
    texts = ["a" * n for n in range(1, 30)]
    assert scorer(server, endpoint=endpoint).score(list(map(answer, texts))) == [float(n) for n in range(1, 30)]
    path, key, body = server.bodies[0]
    assert (path, key) == (f"/{endpoint}", None)
    assert body["model"] == "rm"
    assert body["add_generation_prompt"] is False
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant"]


def test_the_key_is_read_from_its_file(server, tmp_path):
    (tmp_path / "key").write_text("secret\n")
    scorer(server, api_key_file=str(tmp_path / "key")).score([answer("a")])
    assert server.bodies[0][1] == "Bearer secret"


def test_what_fails_in_passing_is_asked_again_after_growing_pauses(server):
    pauses = []
    assert scorer(server, pauses).score([answer("flaky")]) == [5.0]
    assert server.seen["flaky"] == 3
    assert len(pauses) == 2
    assert all(pause >= 0 for pause in pauses)


def test_empty_and_too_long_answers_have_no_reward(server):
    found = scorer(server).score([answer(" "), answer("413"), answer("ab")])
    assert math.isnan(found[0])
    assert math.isnan(found[1])
    assert found[2] == 2.0
    assert server.seen[" "] == 0


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("503", r"answered 503: .*; asked 3 times", 3),
        ("401", r"/classify answered 401", 1),
        ("two labels", r"no reward in .* \(2 labels\)", 1),
        ("nothing", r"no reward in", 1),
    ],
)
def test_what_fails_for_good_is_named(server, text, said, calls):
    with pytest.raises(UserError, match=said):
        scorer(server, endpoint="classify", retries=2).score([answer(text)])
    assert server.seen[text] == calls


def test_no_server_is_named():
    config = RewardEndpointConfig(base_url="http://127.0.0.1:9", model="rm", retries=0)
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/pooling: ConnectError"):
        open_scorer(config, None, None, print).score([answer("a")])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url"),
        ({"base_url": "http://user:secret@127.0.0.1:8000"}, "base_url"),
        ({"model": ""}, "model"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": 0.0}, "timeout"),
        ({"retries": -1}, "retries"),
    ],
)
def test_contradictions_are_named(changes, problem):
    config = RewardEndpointConfig(**{"base_url": "http://x", "model": "rm"} | changes)
    assert [found.field for found in config.validate()] == [problem]
