import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from aya_jax.config import ConfigError, configurable, resolve
from aya_jax.inference.generate_config import GenerateConfig
from aya_jax.inference.remote_config import RemoteModelConfig

BASE = ["RemoteModelConfig.base_url='http://127.0.0.1:8000/v1'", "RemoteModelConfig.model='m'"]


@configurable
@dataclass(frozen=True, kw_only=True)
class _Root:
    model: RemoteModelConfig

    def validate(self):
        return ()


def test_defaults_are_right():
    resolved = resolve(_Root, bindings=BASE)
    assert resolved.config.model.url == "http://127.0.0.1:8000/v1/chat/completions"
    assert resolve(_Root, bindings=[*BASE, "RemoteModelConfig.endpoint='completions'"]).config.model.url.endswith(
        "/v1/completions"
    )


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000/v1", "ftp://h/v1", "http://", "http://h:port/v1", "http://h/v 1", "http://user:pw@h/v1",
     "http://key@h/v1", "http://h/v1?key=5", "http://h/v1#x", "http://h/v1/chat/completions", "http://h/v1/completions/",
     "http://[::1/v1"],
)  # fmt: skip
def test_what_is_no_address(url):
    with pytest.raises(ConfigError, match=r"RemoteModelConfig\.base_url"):
        resolve(_Root, bindings=[*BASE, f"RemoteModelConfig.base_url='{url}'"])


@pytest.mark.parametrize("url", ["https://api.cohere.ai/compatibility/v1", "http://[::1]:80/v1/", "http://h"])
def test_what_is_one(url):
    config = resolve(_Root, bindings=[*BASE, f"RemoteModelConfig.base_url='{url}'"]).config.model
    assert config.url == url.rstrip("/") + "/chat/completions"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "''"), ("concurrency", "0"), ("retries", "-1"), ("max_failures", "-1"), ("requests_per_minute", "0.0"),
        ("requests_per_minute", "1e999"), ("tokens_per_minute", "-5"), ("timeout", "0"), ("timeout", "1e999"),
        ("backoff_min", "0"), ("backoff_max", "0.5"), ("longest_wait", "-1"), ("input_price", "-1"), ("max_cost", "5"),
        ("dialect", "'vlm'"), ("endpoint", "'chats'"), ("max_tokens_field", "'max'"),
    ],
)  # fmt: skip
def test_numbers_out_of_range(field, value):
    with pytest.raises(ConfigError, match=rf"RemoteModelConfig\.{field}"):
        resolve(_Root, bindings=[*BASE, f"RemoteModelConfig.{field}={value}"])


def test_one_price_alone():
    with pytest.raises(ConfigError, match="both prices"):
        resolve(_Root, bindings=[*BASE, "RemoteModelConfig.input_price=1.0"])


@pytest.mark.parametrize(
    "body", ["{'messages': []}", "{'stream': True}", "{'n': None}", "{'top_k': 5}", "{'x': 1e999}"]
)
def test_what_extra_body_may_not_hold(body):
    with pytest.raises(ConfigError, match=r"RemoteModelConfig\.extra_body"):
        resolve(_Root, bindings=[*BASE, f"RemoteModelConfig.extra_body={body}"])


def test_extra_body_survives_the_operative_text(tmp_path):
    body = {"seed": None, "reasoning": {"effort": "low"}, "tags": ["a", 1, 2.5, True]}
    resolved = resolve(_Root, bindings=[*BASE, f"RemoteModelConfig.extra_body={body!r}"])
    (tmp_path / "config.gin").write_text(resolved.text)
    again = resolve(_Root, files=[tmp_path / "config.gin"])
    assert again.fingerprint == resolved.fingerprint
    assert json.loads(json.dumps(again.config.model.extra_body)) == body


def test_neither_jax_nor_httpx_is_imported():
    heavy = "{'jax', 'numpy', 'httpx', 'tensorflow'}"
    program = f"import sys, aya_jax.inference.remote_config as _; print({heavy} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "set()"


def test_cost():
    config = RemoteModelConfig(base_url="http://h", model="m", input_price=2.5, output_price=10.0)
    assert config.cost(1_000_000, 100_000) == pytest.approx(3.5)
    assert RemoteModelConfig(base_url="http://h", model="m").cost(1, 1) is None


def test_the_gin_file_puts_an_endpoint_in_place_of_the_model():
    bindings = ["REMOTE_URL=http://127.0.0.1:8000/v1", "REMOTE_MODEL=aya", "PROMPT=Hello"]
    found = resolve(GenerateConfig, ["generate/base.gin", "generate/remote.gin"], bindings).config
    assert (found.model.base_url, found.model.model, found.prompt) == ("http://127.0.0.1:8000/v1", "aya", "Hello")
    assert found.chat
