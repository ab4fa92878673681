"""Scores translations by a COMET checkpoint: the text of a program for the Python that has unbabel-comet.

That package pins older releases of what aya_jax is made of, so it has an environment of its own, and this imports nothing of
aya_jax. `comet` runs it with `-c` and CHECKPOINT BATCH GPUS: it reads one JSON list of {"src", "mt", "ref"} a line, and answers
each with one JSON list of numbers.
"""

import json
import os
import sys


def main(checkpoint: str, batch: int, gpus: int) -> None:
    """Answers lists until there are none."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the library prints is no answer
    from comet import load_from_checkpoint

    model = load_from_checkpoint(checkpoint)
    for line in sys.stdin:
        found = model.predict(json.loads(line), batch_size=batch, gpus=gpus, progress_bar=False)
        print(json.dumps([float(score) for score in found.scores]), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
