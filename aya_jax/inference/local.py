"""A model on this machine as a generator: texts and conversations around the engine, which knows tokens only.

The engine runs in a thread of its own. Requests come from any thread; what becomes of them is told from that one. On a mesh
of several processes there is no such thread: each process asks for the same, in the same order, and all take every step
together, in the thread that asks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.inference.config import EngineConfig, LocalModelConfig, SamplingConfig
from aya_jax.inference.engine import Engine, EngineStats, Progress, Sample, Scored, TokenRequest
from aya_jax.inference.protocol import Completion, Delta, FinishReason, Request, Response, Token
from aya_jax.inference.stop_strings import StopStrings
from aya_jax.interop.model_dir import find_model, load_params, weights_digest
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.compilation import use_compilation_cache
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.state import abstract_params

_AHEAD = 4  # requests that `generate` holds for each slot, so that none waits for the caller


class LocalGenerator:
    """A `StreamingGenerator` over an engine; a context that ends its thread."""

    def __init__(self, engine: Engine, tokenizer: ChatTokenizer, mesh: Mesh, name: str, digest: Callable[[], str]):
        """Starts the engine's thread.

        Args:
          engine: made under `mesh`; from now on the thread's alone.
          tokenizer: of its model.
          mesh: that it runs on.
          name: of the model.
          digest: computes `weights_digest`.
        """
        self.name, self.tokenizer, self.max_length, self.slots = name, tokenizer, engine.max_length, engine.config.slots
        self._engine, self._mesh, self._digest = engine, mesh, digest
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._jobs: set[_Job] = set()
        self._thread: threading.Thread | None = None
        if not mesh.is_multi_process:  # a thread would take requests in when it happens to see them
            self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
            self._thread.start()

    @functools.cached_property
    def weights_digest(self) -> str:
        """Of the files that the weights were read from."""
        return self._digest()

    @property
    def alive(self) -> bool:
        """Whether its engine still runs."""
        return self._failure is None

    def stats(self) -> EngineStats:
        """What the engine is doing, and has done."""
        return self._engine.stats

    def start(self, request: Request, listener: Callable[[Delta], None]) -> _Job:
        """As `StreamingGenerator.start`."""
        self._check_alive()
        job = _Job(self, request, self._tokens(request), listener)
        for sample in job.samples:
            self._naming(request, lambda sample=sample: self._engine.check(sample.request))
        self._commands.put(functools.partial(self._submit, job))
        return job

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """As `Generator.generate`."""
        done: queue.SimpleQueue[Response | BaseException] = queue.SimpleQueue()
        source, open_jobs, most = iter(requests), {}, _AHEAD * self._engine.config.slots
        try:
            while True:
                while len(open_jobs) < most and (request := next(source, None)) is not None:
                    if request.id in open_jobs:
                        raise UserError(f"request {request.id!r}: another one has this id")
                    collector = _Collector(request, done.put)
                    open_jobs[request.id] = collector.job = self.start(request, collector)
                if not open_jobs:
                    return
                while self._thread is None and done.empty():
                    self._turn()
                response = done.get()
                if isinstance(response, BaseException):
                    raise response
                del open_jobs[response.id]
                yield response
        finally:
            for job in open_jobs.values():
                job.cancel()

    def load(self, params: Any) -> None:
        """Takes other weights of the same model (`Engine.load`) between two blocks of work, and waits for it."""
        self.call(lambda: self._engine.load(params))

    def release(self) -> None:
        """Frees weights and cache until `load`; nothing may be in work."""
        self.call(self._engine.release)

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs a function in the engine's thread, between two blocks of work, and returns what it returns."""
        self._check_alive()
        outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put((function(), None))
            except BaseException as error:
                outcome.put((None, error))

        self._commands.put(run)
        if self._thread is None:
            with jax.set_mesh(self._mesh):
                self._obey(wait=False)
        value, error = outcome.get()
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Ends the thread; what is not finished is cancelled."""
        self._commands.put(None)
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> LocalGenerator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # In the caller's thread ------------------------------------------------------------------------------------------

    def _tokens(self, request: Request) -> tuple[int, ...]:
        prompt = request.prompt
        if isinstance(prompt, str):
            return tuple(self._naming(request, lambda: self.tokenizer.encode_text(prompt)))
        if prompt and isinstance(prompt[0], Message):
            return tuple(self._naming(request, lambda: self.tokenizer.encode_chat(prompt)))
        return tuple(prompt)

    def _naming(self, request: Request, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except UserError as error:
            raise UserError(f"request {request.id!r}: {error}") from error

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise UserError(f"the engine has stopped: {self._failure!r}") from self._failure

    # In the engine's thread, where it has one ------------------------------------------------------------------------

    def _turn(self) -> None:
        with jax.set_mesh(self._mesh):
            self._obey(wait=False)
            self._engine.step()

    def _run(self) -> None:
        try:
            with jax.set_mesh(self._mesh):
                busy = False
                while self._obey(wait=not busy):
                    busy = self._engine.step()
                self._failure = UserError("it was closed")
        except BaseException as error:
            self._failure = error
        for job in list(self._jobs):
            job.end()

    def _obey(self, wait: bool) -> bool:
        """Runs the commands that there are, waiting for one if asked to; False for the last."""
        while True:
            try:
                command = self._commands.get(block=wait)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            wait = False

    def _submit(self, job: _Job) -> None:
        self._jobs.add(job)
        for sample in job.samples:
            sample.submit(self._engine)

    def _cancel(self, job: _Job) -> None:
        if job in self._jobs:
            job.end()

    def _finished(self, job: _Job) -> None:
        self._jobs.discard(job)


class _Job:
    """A request in work."""

    def __init__(
        self, generator: LocalGenerator, request: Request, prompt: tuple[int, ...], listener: Callable[[Delta], None]
    ):
        self.prompt_tokens = len(prompt)
        self._generator, self._listener = generator, listener
        self.samples = [_Text(self, request.sampling, prompt, number) for number in range(request.sampling.n)]

    def cancel(self) -> None:
        """As `Job.cancel`."""
        self._generator._commands.put(lambda: self._generator._cancel(self))

    def tell(self, delta: Delta) -> None:
        """Passes a delta on; a listener that fails ends the job, not the engine."""
        try:
            self._listener(delta)
        except Exception:
            self._listener = lambda delta: None
            self.end()
        if all(sample.done for sample in self.samples):
            self._generator._finished(self)

    def end(self) -> None:
        """Cancels what has not finished."""
        for sample in self.samples:
            sample.cancel()

    @property
    def engine(self) -> Engine:
        return self._generator._engine

    @property
    def tokenizer(self) -> ChatTokenizer:
        return self._generator.tokenizer


class _Text:
    """One sample: from its tokens to its text, up to a stop string."""

    def __init__(self, job: _Job, sampling: SamplingConfig, prompt: tuple[int, ...], number: int):
        own = () if sampling.ignore_stop_tokens else job.tokenizer.stop_ids
        if number:
            sampling = dataclasses.replace(sampling, prompt_log_probs=False)
        self.request = TokenRequest(
            prompt=prompt, sampling=sampling, stop_ids=frozenset(own) | frozenset(sampling.stop_ids), number=number
        )
        self.done = False
        self._job, self._number = job, number
        self._stream, self._stop = job.tokenizer.stream(), StopStrings(sampling.stop)
        self._sample: Sample | None = None

    def submit(self, engine: Engine) -> None:
        self._sample = engine.submit(self.request, self._on_progress)

    def cancel(self) -> None:
        if not self.done:
            if self._sample is not None:
                self._job.engine.cancel(self._sample)
            self._tell(self._rest(), (), "cancelled")

    def _on_progress(self, progress: Progress) -> None:
        if progress.prompt:
            self._job.tell(Delta(index=0, prompt=tuple(map(self._token, progress.prompt))))
            return
        text, tokens, reason = "", [], progress.finish_reason
        for scored in progress.tokens:
            tokens.append(self._token(scored))
            if scored.id in self.request.stop_ids:
                break
            text += self._stop.push(self._stream.push([scored.id]))
            if self._stop.found:
                self._job.engine.cancel(self._sample)
                reason = "stop"
                break
        if reason is not None and not self._stop.found:
            text += self._rest()
            reason = "stop" if self._stop.found else reason
        self._tell(text, tuple(tokens), reason)

    def _rest(self) -> str:
        """What was held back; a stop string may yet show in it."""
        return self._stop.push(self._stream.flush()) + self._stop.flush()

    def _tell(self, text: str, tokens: tuple[Token, ...], reason: FinishReason | None) -> None:
        self.done = reason is not None
        if text or tokens or reason:
            self._job.tell(Delta(index=self._number, text=text, tokens=tokens, finish_reason=reason))

    def _token(self, scored: Scored) -> Token:
        name = self._job.tokenizer.token_text
        top = tuple((other, name(other), value) for other, value in scored.top)
        return Token(id=scored.id, text=name(scored.id), log_prob=scored.log_prob, top=top)


class _Collector:
    """A listener that makes a response of the deltas."""

    def __init__(self, request: Request, done: Callable[[Response | BaseException], None]):
        self._id, self._done = request.id, done
        self._parts: list[list[Delta]] = [[] for _ in range(request.sampling.n)]
        self._prompt: tuple[Token, ...] = ()
        self.job: _Job | None = None

    def __call__(self, delta: Delta) -> None:
        if delta.prompt:
            self._prompt = delta.prompt
            return
        self._parts[delta.index].append(delta)
        if delta.finish_reason == "cancelled":
            self._done(UserError(f"request {self._id!r}: the engine has stopped before it was finished"))
        elif all(parts and parts[-1].finish_reason for parts in self._parts):
            completions = tuple(
                Completion(
                    text="".join(delta.text for delta in parts),
                    tokens=tuple(token for delta in parts for token in delta.tokens),
                    finish_reason=parts[-1].finish_reason,
                )
                for parts in self._parts
            )
            self._done(
                Response(
                    id=self._id,
                    completions=completions,
                    prompt_tokens=self.job.prompt_tokens,
                    prompt=self._prompt,
                )
            )


def open_generator(config: LocalModelConfig, say: Callable[[str], None]) -> LocalGenerator:
    """Loads a model and starts its engine.

    Args:
      config: which, and how it is run.
      say: is told what the user should know.

    Raises:
      UserError: there is no such model, its tokenizer is missing, or it does not divide over the mesh.
    """
    use_compilation_cache(config.compilation_cache)
    found = find_model(config.model_dir, say, config.adapter)
    if found.tokenizer is None:
        raise UserError(f"{config.model_dir}: there is no tokenizer beside the weights; put its tokenizer.json there")
    tokenizer = ChatTokenizer.open(found.tokenizer)
    if tokenizer.vocabulary.size > found.config.vocab_size:
        raise UserError(
            f"{config.model_dir}: its tokenizer has {tokenizer.vocabulary.size} tokens and its model "
            f"{found.config.vocab_size} rows; they are not of one model"
        )
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        model = Transformer(found.config, config.precision or usual_precision(), config.mesh.logical_axes)
        # In the compute format, which is all that an engine needs of them.
        like = abstract_params(model, mesh, model.precision.compute)
        engine = Engine(model, load_params(found, like), config.engine, consume=True)
    return LocalGenerator(engine, tokenizer, mesh, found.path.name, functools.partial(weights_digest, found))


@contextlib.contextmanager
def generating(
    model: Transformer,
    params: Any,
    config: EngineConfig,
    tokenizer: ChatTokenizer,
    mesh: Mesh,
    name: str,
    max_length: int,
    samples: int,
    *,
    consume: bool = False,
    digest: Callable[[], str] = lambda: "",
) -> Iterator[LocalGenerator]:
    """A generator over weights that are on the devices, while the context is open.

    Args:
      model, params, consume, samples: as `Engine` takes them.
      config: the engine's shape.
      tokenizer: of the model.
      mesh: what it runs on.
      name: of the model.
      max_length: tokens of a prompt and its answer together, where the configuration does not say.
      digest: of the weights.
    """
    config = dataclasses.replace(config, max_length=config.max_length or max_length)
    with jax.set_mesh(mesh):
        engine = Engine(model, params, config, consume=consume, samples=samples)
    del params
    with LocalGenerator(engine, tokenizer, mesh, name, digest) as opened:
        yield opened


def usual_precision() -> PrecisionConfig:
    """bfloat16 on GPUs and TPUs, float32 on CPU."""
    if jax.default_backend() == "cpu":
        return PrecisionConfig()
    return PrecisionConfig(params="bfloat16", compute="bfloat16")
