"""COMET (Rei et al. 2020) and xCOMET (Guerreiro et al. 2024) of translations, by unbabel-comet in a process of its own.

The package pins older releases of numpy, pandas and others than this project runs with. So it is installed in an environment
beside, whose Python is named, and gets segments and gives scores through a pipe. Scores are kept with a model's answers, by the
digest of the checkpoint and the three texts: none is computed twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from aya_jax.config import UserError
from aya_jax.evaluation import comet_worker
from aya_jax.evaluation.answers import Answers, question
from aya_jax.evaluation.config import TranslationConfig
from aya_jax.training.console import Track

_CHUNK = 1024  # segments after which what is known is kept


class Segment(NamedTuple):
    """A sentence, what it was translated to, and what would have been right."""

    source: str
    translation: str
    reference: str


class Comet:
    """A checkpoint."""

    def __init__(self, config: TranslationConfig):
        """Looks for what will be needed.

        Raises:
          UserError: there is no checkpoint, or the Python has no unbabel-comet.
        """
        self._config, self._file = config, Path(str(config.comet)).absolute()
        self._python = str(Path(shutil.which(config.comet_python or sys.executable) or config.comet_python).absolute())
        if not self._file.is_file() or not (self._file.parents[1] / "hparams.yaml").is_file():
            raise UserError(
                f"TranslationConfig.comet: {self._file} is no checkpoint of COMET; name the `checkpoints/model.ckpt` of a copy "
                "of a model such as Unbabel/XCOMET-XL, with its hparams.yaml beside that folder"
            )
        look = "import importlib.util as i, sys; sys.exit(i.find_spec('comet') is None)"
        with tempfile.TemporaryDirectory() as elsewhere:
            command = [self._python, "-c", look]
            try:
                found = subprocess.run(command, cwd=elsewhere, capture_output=True, check=False).returncode == 0
            except OSError as error:
                raise UserError(f"TranslationConfig.comet_python: {self._python}: {error.strerror}") from error
        if not found:
            raise UserError(
                f"COMET needs unbabel-comet, and {self._python} has none: python -m venv comet && comet/bin/pip install "
                "unbabel-comet, then add --gin.TranslationConfig.comet_python=comet/bin/python"
            )
        with self._file.open("rb") as stream:
            self._digest = hashlib.file_digest(stream, "sha256").hexdigest()

    @property
    def signature(self) -> str:
        """Which checkpoint it is."""
        return f"model:{self._file.parents[1].name}|sha256:{self._digest[:16]}"

    def scores(self, segments: Sequence[Segment], answers: Answers, track: Track) -> list[float]:
        """Of each segment, where 1 is best.

        Args:
          segments: what to score.
          answers: what is known, and grows.
          track: for progress.

        Raises:
          UserError: COMET fails; with its last words.
        """
        keys = [question("comet", self._digest, *segment) for segment in segments]
        new = {key: segment for key, segment in zip(keys, segments, strict=True) if answers.get(key) is None}
        with track("COMET", len(new)) as advance:
            done = 0
            for scores in self._run(list(new.values())) if new else ():
                answers.put(dict(zip(list(new)[done : done + len(scores)], scores, strict=True)))
                done += len(scores)
                advance(len(scores))
        return [answers.get(key) for key in keys]

    def _run(self, segments: Sequence[Segment]) -> Iterator[list[float]]:
        """Scores of some segments at a time, in order."""
        program = Path(comet_worker.__file__).read_text(encoding="utf-8")
        settings = str(self._file), str(self._config.comet_batch), str(int(self._config.comet_gpu))
        # In a folder of its own: "comet" is to be the package, and nothing that lies about here.
        with tempfile.TemporaryFile() as said, tempfile.TemporaryDirectory() as elsewhere:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said, "cwd": elsewhere}
            with subprocess.Popen(
                [self._python, "-c", program, *settings], text=True, encoding="utf-8", **pipes
            ) as process:
                for start in range(0, len(segments), _CHUNK):
                    chunk = segments[start : start + _CHUNK]
                    rows = [{"src": s.source, "mt": s.translation, "ref": s.reference} for s in chunk]
                    try:
                        process.stdin.write(json.dumps(rows) + "\n")
                        process.stdin.flush()
                        line = process.stdout.readline()
                    except BrokenPipeError:
                        line = ""
                    scores = json.loads(line) if line.endswith("\n") else []
                    if len(scores) != len(chunk):
                        process.kill()
                        said.seek(0)
                        words = said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
                        raise UserError(f"COMET ({self._python}) failed: {''.join(words) or 'without a word'}")
                    yield scores
