"""How far two models are apart: their logits on the same tokens.

    python tools/compare_logits.py A B [--text FILE] [--length 256]

A and B are run directories, checkpoints, or Hugging Face directories, of one vocabulary. The text (by default some sentences in
several scripts) is encoded by A's tokenizer; without one, tokens are random. Prints, over all positions: the largest and the
mean absolute difference of the logits, the mean and the largest KL divergence of B's next token from A's in nats, and how often
the likeliest token is the same. Both are computed in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aya_jax.config import UserError
from aya_jax.data import vocabulary
from aya_jax.interop.model_dir import ModelDir, find_model, load_params
from aya_jax.models.transformer import Transformer

_SAMPLE = "The river is wide. El río es ancho. Река широка. 河很宽。 النهر واسع. नदी चौड़ी है।"


@dataclasses.dataclass(frozen=True)
class Difference:
    """Between two models' logits.

    Attributes:
      positions: compared.
      largest: absolute difference of any logit.
      mean: absolute difference.
      kl: mean KL(A, B) of the next token, nats.
      kl_largest: of any position.
      agreement: share of positions whose likeliest token is the same.
    """

    positions: int
    largest: float
    mean: float
    kl: float
    kl_largest: float
    agreement: float


def compare(first: np.ndarray, second: np.ndarray) -> Difference:
    """The difference of logits [S, V]."""
    one, two = (np.asarray(jax.nn.log_softmax(jnp.asarray(logits), axis=-1), np.float64) for logits in (first, second))
    kl = np.sum(np.exp(one) * (one - two), axis=-1)
    apart = np.abs(first.astype(np.float64) - second)
    same = np.argmax(first, axis=-1) == np.argmax(second, axis=-1)
    return Difference(len(first), apart.max(), apart.mean(), kl.mean(), kl.max(), same.mean())


def logits(found: ModelDir, tokens: np.ndarray) -> np.ndarray:
    """float32 [S, V] of a row of tokens."""
    model = Transformer(found.config)
    params = load_params(found, model.shapes())
    return np.asarray(jax.jit(model.logits)(params, {"tokens": tokens[None]})[0])


def tokens_for(found: ModelDir, text: str, length: int) -> np.ndarray:
    """int32 [S], at most `length`."""
    if found.tokenizer is None:
        return np.random.default_rng(0).integers(0, found.config.vocab_size, length, dtype=np.int32)
    known = vocabulary.load(found.tokenizer)
    bos = [] if known.bos_id is None else [known.bos_id]
    return np.asarray([*bos, *known.encode_batch([text])[0]][:length], np.int32)


def main(argv: list[str] | None = None) -> int:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs=2, metavar=("A", "B"))
    parser.add_argument("--text", type=Path)
    parser.add_argument("--length", type=int, default=256, help="tokens that are compared at the most")
    arguments = parser.parse_args(argv)
    try:
        first, second = (find_model(path, print) for path in arguments.models)
        sizes = [found.config.vocab_size for found in (first, second)]
        if sizes[0] != sizes[1]:
            raise UserError(f"{arguments.models[0]} has {sizes[0]} tokens and {arguments.models[1]} {sizes[1]}")
        text = _SAMPLE if arguments.text is None else arguments.text.read_text(encoding="utf-8")
        tokens = tokens_for(first, text, arguments.length)
        found = compare(logits(first, tokens), logits(second, tokens))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{found.positions} positions")
    print(f"logits   largest difference {found.largest:.3g}, mean {found.mean:.3g}")
    print(f"KL(A, B) mean {found.kl:.3g} nats, largest {found.kl_largest:.3g}")
    print(f"the likeliest token is the same at {found.agreement:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
