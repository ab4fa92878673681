import pytest

from aya_jax.inference.protocol import Request
from aya_jax.inference.remote_config import RemoteModelConfig
from aya_jax.inference.remote_estimate import estimate, rough_tokens
from tests.inference.remote_endpoint import question

REQUESTS = [question("x" * 10, max_tokens=100, n=2), question("y" * 8, max_tokens=50)]


def config(**fields):
    return RemoteModelConfig(base_url="http://h/v1", model="m", **fields)


def test_sums():
    found = estimate(iter(REQUESTS), config(input_price=1000.0, output_price=2000.0))
    assert (found.requests, found.prompt_tokens, found.new_tokens, found.counted) == (2, 3 + 2, 250, False)
    assert found.cost == pytest.approx((5 * 1000 + 250 * 2000) / 1e6)
    assert found.seconds is None
    assert str(found) == "2 requests, 5 prompt tokens (characters / 4), at most 250 new; costs at most 0.5050"


def test_a_tokenizer_counts():
    found = estimate(REQUESTS, config(), count=lambda prompt: len(prompt[0].content))
    assert (found.prompt_tokens, found.counted, found.cost) == (18, True, None)
    assert "characters" not in str(found)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"requests_per_minute": 60.0}, 2),
        ({"tokens_per_minute": 255.0}, 60),
        ({"requests_per_minute": 1.0, "tokens_per_minute": 2550.0}, 120),
    ],
)
def test_seconds_at_the_limits(limits, seconds):
    found = estimate(REQUESTS, config(**limits))
    assert found.seconds == pytest.approx(seconds)
    assert f"at least {seconds} s" in str(found)


def test_nothing():
    assert str(estimate([], config())) == "0 requests, 0 prompt tokens (characters / 4), at most 0 new"


def test_rough_tokens():
    assert rough_tokens((5, 6, 7)) == 3
    assert rough_tokens("12345") == 2
    assert rough_tokens(Request(id="", prompt="").prompt) == 0
