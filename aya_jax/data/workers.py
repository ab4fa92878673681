"""Runs shard jobs on this machine: in this process, or in a pool of processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

from aya_jax.config import UserError
from aya_jax.data.manifest import ShardInfo
from aya_jax.data.shards import Report, ShardJob, prepare_shard

_POLL_SECONDS = 0.2

Finished = tuple[ShardJob, dict[str, ShardInfo]]

_progress: Any = None  # a worker's queue to the process that shows progress


def run(jobs: Sequence[ShardJob], num_workers: int, report: Report) -> Iterator[Finished]:
    """Yields each job with the totals of what it wrote for each split, as it finishes.

    Args:
      jobs: what to do.
      num_workers: processes; 1 works here, with the tokenizer on every core, and starts none; 0 is one per core.
      report: told of documents, bytes and tokens as they are done, in this process.

    Raises:
      UserError: a job failed, or a worker was killed. Shards that are finished stay.
    """
    workers = min(num_workers or os.cpu_count() or 1, len(jobs))
    if workers > 1:
        yield from _run_pool(jobs, workers, report)
        return
    yield from _run_here(jobs, report)


def _run_here(jobs: Sequence[ShardJob], report: Report) -> Iterator[Finished]:
    """Two jobs at a time, so that one reads while the other tokenises; the tokenizer's threads need no interpreter lock."""
    pool = ThreadPoolExecutor(2)
    try:
        done = pool.map(lambda job: prepare_shard(replace(job, parallel=True), report), jobs)
        yield from zip(jobs, done, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _run_pool(jobs: Sequence[ShardJob], workers: int, report: Report) -> Iterator[Finished]:
    # Started afresh: a process that has imported TensorFlow or run tokenizer threads cannot be forked safely.
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(messages,))
    try:
        waiting: dict[Future[dict[str, ShardInfo]], ShardJob] = {pool.submit(_work, job): job for job in jobs}
        while waiting:
            done, _ = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            _forward(messages, report)
            for future in done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed, most likely for want of memory; finished shards are kept: "
            "run the same command again, with fewer num_workers"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list((pool._processes or {}).values()):
            process.terminate()  # a shard that is half done is written beside and made anew


def _forward(messages: Any, report: Report) -> None:
    while True:
        try:
            report(*messages.get_nowait())
        except queue.Empty:
            return


def _start_worker(messages: Any) -> None:
    global _progress
    _progress = messages
    messages.cancel_join_thread()
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A worker whose parent is killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(job: ShardJob) -> dict[str, ShardInfo]:
    """One job, its failure told in words: not every exception can be sent from one process to another."""
    try:
        return prepare_shard(job, lambda *counts: _progress.put(counts))
    except UserError as error:
        raise UserError(str(error)) from None
    except Exception as error:
        raise RuntimeError(f"in a worker, at {job}:\n{traceback.format_exc()}") from error
