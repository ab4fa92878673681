"""Our models as lm-evaluation-harness wants them: texts in, log-probabilities and texts out.

Where a choice is to be made it is the one of the harness's own Hugging Face back-end (`HFLM`, release 0.4.13): how a context
and its continuation are told apart, what stands before a text without context, what is cut where a prompt is too long, what
ends an answer. So scores are the same; tests hold log-probabilities to 1e-4 of that back-end's. One difference is
left: in a batch of several, that back-end writes on after a text's end where the model's configuration does not name the token.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.evaluation.answers import Answers, question
from aya_jax.evaluation.likelihoods import Score, known_or_scored, likelihood_keys
from aya_jax.evaluation.scoring import Continuation, Likelihood
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import FailedResponse, Generator, Request
from aya_jax.parallel.distributed import check_same
from aya_jax.training.console import Track

_PASSED_ON = {"temperature": float, "top_p": float, "top_k": int, "repetition_penalty": float, "min_p": float}
_IGNORED = {"do_sample", "num_beams", "use_cache"}


class HarnessModel(TemplateLM):
    """A model for `lm_eval.evaluate`."""

    def __init__(
        self,
        score: Score,
        open_generator: Callable[[int, int], AbstractContextManager[Generator]],
        tokenizer: ChatTokenizer,
        answers: Answers,
        track: Track,
        *,
        max_length: int,
        max_tokens: int,
        seed: int,
        chat: bool,
    ):
        """Takes what does the work.

        Args:
          score: log-probabilities of continuations.
          open_generator: of answers: for so many tokens of prompt and answer together, and so many answers; opened when
            the first is wanted.
          tokenizer: the model's.
          answers: what is known of the model.
          track: (label, total) -> a context with what to call for progress.
          max_length: tokens of a prompt and its answer together.
          max_tokens: of an answer, where a task does not say.
          seed: of answers that are drawn.
          chat: whether prompts are conversations, so that the end of a turn ends an answer; else only the end of a text does.
        """
        super().__init__()
        self._score, self._open_generator, self._tokens, self._answers = score, open_generator, tokenizer, answers
        self._track, self._max_length, self._max_tokens, self._seed = track, max_length, max_tokens, seed
        self._stop_ids = tuple(sorted(tokenizer.stop_ids if chat else tokenizer.end_ids))

    # Texts -----------------------------------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._tokens.vocabulary.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        bos = self._tokens.vocabulary.bos_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of requests, which is not used here."""
        return self._tokens.template_digest

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text; by default with what the tokenizer puts before it, unless the text has it already."""
        if add_special_tokens is None:
            begun = self._tokens.token_text(self.prefix_token_id)
            add_special_tokens = not (begun and string.startswith(begun))
        return self._tokens.encode_trusted(string, around=add_special_tokens)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """For the harness's records."""
        return self._tokens.template_digest if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model was tuned with it.

        Raises:
          UserError: there is no template, or it refuses the conversation.
        """
        messages = [Message(turn["role"], turn["content"]) for turn in chat_history]
        return self._tokens.render(messages, add_generation_prompt)

    # Log-probabilities -----------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As `TemplateLM.loglikelihood`, without its bar."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """(log-probability, greedy) of (texts, context, continuation)."""
        asked = [Continuation(tuple(context), tuple(tokens)) for _, context, tokens in requests]
        return [(found.log_prob, found.greedy) for found in self._likelihoods(asked)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of whole texts, each in windows as long as the model reads, every token predicted once."""
        owners, asked = [], []
        for owner, request in enumerate(requests):
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._max_length,
                context_len=1,
            ):
                context, tokens = make_disjoint_window(window)
                owners.append(owner)
                asked.append(Continuation(tuple(context), tuple(tokens)))
        sums = [0.0] * len(requests)
        for owner, found in zip(owners, self._likelihoods(asked), strict=True):
            sums[owner] += found.log_prob
        return sums

    def _likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        check_same(question(*likelihood_keys(asked, self._max_length)), "other questions")
        with self._track("log-probabilities", len(asked)) as advance:
            return known_or_scored(asked, self._score, self._answers, max_length=self._max_length, advance=advance)

    # Answers ---------------------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Answers to prompts, each up to the first text that ends it.

        Raises:
          UserError: a task wants more tokens than the model has room for, or samples in a way that is not known here.
        """
        seen: Counter[str] = Counter()
        wanted: dict[str, Request] = {}
        keys = []
        for request in requests:
            prompt, sampling = self._prompt(*request.args)
            key = question("answer", prompt, dataclasses.asdict(sampling))
            if sampling.temperature:  # asked again, an answer that is drawn is another
                seen[key] += 1
                number = seen[key]
                key = question(key, number)
                sampling = dataclasses.replace(sampling, seed=self._seed + number)
            keys.append(key)
            if self._answers.get(key) is None:
                wanted[key] = Request(id=key, prompt=prompt, sampling=sampling)
        check_same(question(*keys), "other questions")
        with self._track("answers", len(wanted)) as advance:
            if wanted:
                longest = max(len(r.prompt) + r.sampling.max_tokens for r in wanted.values())
                with self._open_generator(longest, len(wanted)) as generator:
                    for key, text in _texts(generator, wanted.values()):
                        self._answers.put({key: text})
                        advance(1)
        return [self._answers.get(key) for key in keys]

    def _prompt(self, context: str, settings: Mapping[str, Any]) -> tuple[tuple[int, ...], SamplingConfig]:
        settings = normalize_gen_kwargs(dict(settings), self._max_tokens)
        most, stop, drawn = settings.pop("max_gen_toks"), settings.pop("until"), settings.pop("do_sample", False)
        room = self._max_length - most
        if room < 1:
            raise UserError(
                f"a task asks for {most} new tokens, and the model has room for {self._max_length} in all: bind "
                "HarnessConfig.max_length to a longer one where the model allows it, or leave the task out"
            )
        unknown = sorted(settings.keys() - _PASSED_ON.keys() - _IGNORED)
        if unknown:
            raise UserError(f"a task generates with {', '.join(unknown)}, which is not known here: leave the task out")
        how = {name: kind(settings[name]) for name, kind in _PASSED_ON.items() if settings.get(name) is not None}
        how["temperature"] = how.get("temperature", 1.0) if drawn else 0.0
        stop = tuple(text for text in ([stop] if isinstance(stop, str) else stop or ()) if text)
        ends = {"stop": stop, "stop_ids": self._stop_ids, "ignore_stop_tokens": True}
        sampling = SamplingConfig(max_tokens=most, seed=self._seed, **ends, **how)
        return tuple(self.tok_encode(context)[-room:]), sampling


def _texts(generator: Generator, requests: Iterable[Request]) -> Iterator[tuple[str, str]]:
    for response in generator.generate(requests):
        if isinstance(response, FailedResponse):
            raise UserError(f"{generator.name}: {response.error}; what was answered before is kept: start again")
        yield response.id, response.completions[0].text
