"""Translations against references: chrF++, BLEU and spBLEU of a corpus by sacrebleu, COMET where asked for, with intervals.

A corpus's score is not the mean of its sentences': n-gram counts are summed first. So a resample of sentences sums the counts
of those that were drawn, with sacrebleu's own code for both steps, and the interval is of the number that is reported. COMET is
the mean of its segments', and so is each resample.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.evaluation.statistics import percentiles, resample_counts

# BLEU's words: sacrebleu's own for Chinese, characters where words are not set apart and no analyser comes with it.
_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}
CHRF, BLEU, SPBLEU, COMET = "chrf++", "bleu", "spbleu", "comet"
_PATIENCE = 30  # seconds without a byte of a download


@dataclasses.dataclass(frozen=True)
class CorpusScore:
    """A metric of a corpus.

    Attributes:
      name: "chrf++", "bleu", "spbleu" or "comet".
      signature: sacrebleu's, which says what exactly was computed; of COMET its checkpoint.
      score: of the corpus, 0 to 100.
      low, high: 95 % of resamples of sentences lie between.
      sentences: how many.
    """

    name: str
    signature: str
    score: float
    low: float
    high: float
    sentences: int


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The SentencePiece model of FLORES-200, whose pieces are spBLEU's words.

    Attributes:
      tokenizer: sacrebleu's, around it.
      sha256: of its file, in hex.
    """

    tokenizer: Any
    sha256: str


def sentence_scores(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For a task of the harness: chrF++ of one answer (Popović 2017), 0 to 100."""
    return {CHRF: chrf_metric().sentence_score(results[0].strip(), [doc["reference"]]).score}


def corpus_scores(
    language: str,
    translations: Sequence[str],
    references: Sequence[str],
    *,
    pieces: Pieces | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[CorpusScore]:
    """chrF++, BLEU and spBLEU of a corpus.

    Args:
      language: of the references; chooses BLEU's words.
      translations: one for each reference.
      references: what would have been right.
      pieces: for spBLEU (Goyal et al. 2022, section 5); None leaves it out.
      resamples: of sentences.
      seed: what they derive from.
    """
    import sacrebleu

    metrics = {CHRF: chrf_metric(), BLEU: sacrebleu.BLEU(tokenize=_TOKENIZERS.get(language, "13a"))}
    if pieces is not None:
        metrics[SPBLEU] = spbleu_metric(pieces)
    found = []
    for name, metric in metrics.items():
        whole = metric.corpus_score(list(translations), [list(references)])
        counts = sentence_counts(metric, translations, references)
        drawn = score_resamples(metric, counts, resamples, seed)
        signature = str(metric.get_signature()) + (f"|spm:{pieces.sha256[:16]}" if name == SPBLEU else "")
        found.append(_corpus_score(name, signature, whole.score, drawn, len(references)))
    return found


def segment_mean(
    name: str, signature: str, scores: Sequence[float], *, resamples: int = 1000, seed: int = 0
) -> CorpusScore:
    """A metric that is the mean of its segments', 0 to 1, in the form of the others."""
    values = 100 * np.asarray(scores, np.float64)
    drawn = np.concatenate([counts @ values / len(values) for counts in resample_counts(len(values), resamples, seed)])
    return _corpus_score(name, signature, float(values.mean()), drawn, len(values))


def _corpus_score(name: str, signature: str, score: float, drawn: np.ndarray, sentences: int) -> CorpusScore:
    low, high = percentiles(drawn)
    return CorpusScore(name, signature, score, float(low), float(high), sentences)


def sentence_counts(metric: Any, translations: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What sacrebleu's metric counts in each sentence: float64 [sentences, counts]."""
    return np.asarray(metric._extract_corpus_statistics(list(translations), [list(references)]), np.float64)


def score_resamples(metric: Any, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The corpus's score of resampled sentences: float64 [resamples]."""
    return np.asarray(
        [
            score_of_counts(metric, row)
            for drawn in resample_counts(len(counts), resamples, seed)
            for row in drawn @ counts
        ]
    )


def score_of_counts(metric: Any, counts: np.ndarray) -> float:
    """A corpus's score from the sum of its sentences' counts."""
    return metric._compute_score_from_stats(counts.tolist()).score


def chrf_metric() -> Any:
    """sacrebleu's chrF++.

    Raises:
      UserError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise UserError("scores of translations need sacrebleu: pip install 'aya_jax[eval]'") from error
    return sacrebleu.CHRF(word_order=2)


def spbleu_metric(pieces: Pieces) -> Any:
    """sacrebleu's BLEU over FLORES-200's pieces, as `tokenize="flores200"` makes it from its own copy of the file."""
    import sacrebleu

    metric = sacrebleu.BLEU(tokenize="none")
    metric.tokenizer, metric.tokenizer_signature = pieces.tokenizer, pieces.tokenizer.signature()
    return metric


def open_pieces(file: str | None) -> Pieces:
    """The SentencePiece model of FLORES-200.

    Args:
      file: where it is; None: sacrebleu's own copy, which is downloaded where it is not there.

    Raises:
      UserError: it cannot be had or read; it says how to get it.
    """
    from sacrebleu.tokenizers import tokenizer_spm
    from sentencepiece import SentencePieceProcessor

    url = tokenizer_spm.SPM_MODELS["flores200"]["url"]
    path = Path(file or Path(tokenizer_spm.SACREBLEU_DIR) / "models" / os.path.basename(url))
    if file is None and not path.is_file():
        _download(lambda: tokenizer_spm.download_file(url, str(path)), url, path)
    try:
        content = path.read_bytes()
        processor = SentencePieceProcessor()
        processor.LoadFromSerializedProto(content)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: no SentencePiece model can be read there ({error}): spBLEU needs FLORES-200's, which is at {url}"
        ) from error
    tokenizer = object.__new__(tokenizer_spm.Flores200Tokenizer)  # its __init__ reads sacrebleu's own copy and no other
    tokenizer.name, tokenizer.sp = tokenizer_spm.SPM_MODELS["flores200"]["signature"], processor
    return Pieces(tokenizer, hashlib.sha256(content).hexdigest())


def _download(fetch: Callable[[], Any], url: str, path: Path) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)  # a cluster without a network may drop packets without a word
    try:
        fetch()
    except (OSError, SystemExit) as error:
        raise UserError(
            f"the SentencePiece model of FLORES-200 is not at {path}, and {url} does not give it ({error}): fetch it where "
            "there is a network, and put it there or name it with --gin.TranslationConfig.spm=FILE"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
