"""`aya serve` under many clients at once: good ones, wrong ones, slow ones, and ones that leave.

    python -m tools.bench.serve_load [--seconds 60] [--clients 64] [--model-dir DIR]

Starts a server before a small random model (or the one given), asks a set of seeded questions one by one, then has all clients
ask at once, each time one of: a question, whole or streamed; a question whose body comes a few bytes at a time; a body that
is wrong, too large or without the key; a stream that is left, or not read; a body that breaks off. Every answer to a question
must be the one it had alone. At the end nothing may be running, the server's memory must not have grown since the first
quarter, and SIGTERM must end it with 0. Prints what happened as JSON; exits with 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tools.random_model import shape, write_random_model

KEY = "load-test-key"
HEADERS = {"authorization": f"Bearer {KEY}"}
BODY_LIMIT = 20_000
QUESTIONS = 40
_WRONG = (
    ({"temperature": -1}, 400),
    ({"unknown": 1}, 400),
    ({"model": "other"}, 404),
    ({"prompt": []}, 400),
    ({"max_tokens": 10**6}, 400),
    ({"n": 1000}, 400),
)


class Load:
    """The clients, and what became of their requests."""

    def __init__(self, url: str, model: str):
        self.url, self.model = url, model
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.seconds: list[float] = []
        self._questions = [self._question(number) for number in range(QUESTIONS)]
        self._expected: list[list[str]] = []
        self._http = httpx.AsyncClient(headers=HEADERS, timeout=60, limits=httpx.Limits(max_connections=None))

    async def ask_alone(self) -> None:
        """What each question is answered with when nothing else is asked."""
        for body in self._questions:
            answer = await self._http.post(f"{self.url}/completions", json=body)
            self._expected.append(_texts(answer.json()))

    async def run(self, clients: int, seconds: float, quarter: Callable[[], None]) -> None:
        """All clients at once, for so long; `quarter` is called after the first quarter."""
        end = time.monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds / 4, quarter)
        await asyncio.gather(*(self._client(random.Random(number), end) for number in range(clients)))
        await self._http.aclose()

    async def _client(self, rng: random.Random, end: float) -> None:
        kinds = [self._whole, self._stream, self._dribble, self._bad, self._leave, self._ignore, self._break_off]
        while time.monotonic() < end:
            kind = rng.choices(kinds, weights=(6, 6, 1, 3, 2, 1, 1))[0]
            try:
                outcome = await kind(rng)
            except (httpx.HTTPError, OSError, asyncio.IncompleteReadError) as error:
                outcome = "failed"
                self.wrong.append(f"{kind.__name__[1:]}: {error!r}")
            self.counts[f"{kind.__name__[1:]}: {outcome}"] += 1

    # Kinds of clients ------------------------------------------------------------------------------------------------

    async def _whole(self, rng: random.Random) -> str:
        number, begin = rng.randrange(QUESTIONS), time.monotonic()
        answer = await self._http.post(f"{self.url}/completions", json=self._questions[number])
        if answer.status_code == 200:
            self.seconds.append(time.monotonic() - begin)
            self._compare(number, _texts(answer.json()))
        return self._allowed(answer.status_code, 200, 429)

    async def _stream(self, rng: random.Random) -> str:
        number = rng.randrange(QUESTIONS)
        body = self._questions[number] | {"stream": True}
        texts, last = [""] * body["n"], ""
        async with self._http.stream("POST", f"{self.url}/completions", json=body) as answer:
            if answer.status_code == 200:
                async for line in answer.aiter_lines():
                    last = line or last
                    if line.startswith("data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            texts[choice["index"]] += choice["text"]
                self._compare(number, texts)
                if last != "data: [DONE]":
                    self.wrong.append(f"a stream ends with {last!r}")
            return self._allowed(answer.status_code, 200, 429)

    async def _dribble(self, rng: random.Random) -> str:
        number = rng.randrange(QUESTIONS)
        content = json.dumps(self._questions[number]).encode()

        async def slowly():
            for start in range(0, len(content), 40):
                yield content[start : start + 40]
                await asyncio.sleep(0.1)

        answer = await self._http.post(f"{self.url}/completions", content=slowly())
        if answer.status_code == 200:
            self._compare(number, _texts(answer.json()))
        return self._allowed(answer.status_code, 200, 429)

    async def _bad(self, rng: random.Random) -> str:
        kind = rng.randrange(len(_WRONG) + 3)
        if kind < len(_WRONG):
            fields, status = _WRONG[kind]
            answer = await self._http.post(f"{self.url}/completions", json=self._questions[0] | fields)
            return self._error(answer, status)
        if kind == len(_WRONG):
            return self._error(await self._http.post(f"{self.url}/completions", content=b'{"model": '), 400)
        if kind == len(_WRONG) + 1:
            answer = await self._http.post(
                f"{self.url}/completions", json=self._questions[0], headers={"authorization": ""}
            )
            return self._error(answer, 401)
        # A server that has refused a body may close while it still comes.
        with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            return self._error(await self._http.post(f"{self.url}/completions", content=b"x" * 3 * BODY_LIMIT), 413)
        return "closed"

    async def _leave(self, rng: random.Random) -> str:
        body = self._long(rng)
        async with self._http.stream("POST", f"{self.url}/completions", json=body) as answer:
            if answer.status_code == 200:
                async for _ in answer.aiter_lines():
                    if rng.random() < 0.3:
                        break
            return self._allowed(answer.status_code, 200, 429)

    async def _ignore(self, rng: random.Random) -> str:
        _, writer = await self._raw(self._long(rng))
        await asyncio.sleep(rng.uniform(0, 2))
        writer.transport.abort()
        return "gone"

    async def _break_off(self, rng: random.Random) -> str:
        _, writer = await self._raw(self._long(rng), cut=rng.randrange(1, 60))
        await asyncio.sleep(rng.uniform(0, 0.5))
        writer.transport.abort()
        return "gone"

    # Pieces ----------------------------------------------------------------------------------------------------------

    def _question(self, number: int) -> dict[str, Any]:
        sampling = {
            "seed": number,
            "temperature": (0.0, 0.7, 1.0)[number % 3],
            "n": 1 + number % 3,
            "logprobs": number % 2,
        }
        prompt = "word " * (1 + number % 7) + str(number)
        return {"model": self.model, "prompt": prompt, "max_tokens": 8 + number, **sampling}

    def _long(self, rng: random.Random) -> dict[str, Any]:
        question = rng.choice(self._questions)
        return question | {"stream": True, "max_tokens": 400, "ignore_eos": True}

    async def _raw(self, body: dict[str, Any], cut: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = re.match(r"http://(.*):(\d+)/", self.url)
        reader, writer = await asyncio.open_connection(address[1], int(address[2]))
        content = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content[: len(content) - cut])
        await writer.drain()
        return reader, writer

    def _compare(self, number: int, texts: list[str]) -> None:
        if texts != self._expected[number]:
            self.wrong.append(f"question {number}: {texts} and not {self._expected[number]}")

    def _allowed(self, status: int, *allowed: int) -> str:
        if status not in allowed:
            self.wrong.append(f"status {status} and not one of {allowed}")
        return str(status)

    def _error(self, answer: httpx.Response, status: int) -> str:
        found = answer.json().get("error", {})
        if set(found) != {"message", "type", "param", "code"}:
            self.wrong.append(f"an error in another form: {answer.text[:200]}")
        return self._allowed(answer.status_code, status)


def _texts(answer: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


@contextlib.contextmanager
def server(model_dir: Path, log: Path) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """`aya serve` with small limits; yields the process, its URL and the model's name."""
    key = log.with_suffix(".key")
    key.write_text(KEY)
    flags = {
        "MODEL_DIR": model_dir,
        "API_KEY_FILE": key,
        "ServeConfig.port": 0,
        "LimitsConfig.body_bytes": BODY_LIMIT,
        "LimitsConfig.write_seconds": 2,
    }
    command = [sys.executable, "-m", "aya_jax", "serve", *(f"--gin.{name}={value}" for name, value in flags.items())]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        while not (found := re.search(r"serving (\S+) at (\S+) ", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        yield process, found[2], found[1]
    finally:
        process.kill()
        process.wait()


def memory(process: subprocess.Popen) -> float:
    """MiB that a process holds."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024


def gauges(url: str) -> dict[str, float]:
    """Samples that run and wait, as /metrics has them."""
    text = httpx.get(url.replace("/v1", "/metrics")).text
    return {
        name: float(value) for name, value in re.findall(r"^aya_(running|waiting)_samples (\S+)$", text, re.MULTILINE)
    }


def measure(model_dir: Path, clients: int, seconds: float, log: Path) -> dict[str, Any]:
    """Everything that is printed."""
    sizes: list[float] = []
    with server(model_dir, log) as (process, url, model):

        async def ask() -> Load:
            load = Load(url, model)
            await load.ask_alone()
            await load.run(clients, seconds, lambda: sizes.append(memory(process)))
            return load

        load = asyncio.run(ask())
        deadline = time.monotonic() + 10
        while any(gauges(url).values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = gauges(url)
        sizes.append(memory(process))
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)
    total = sum(load.counts.values())
    return {
        "clients": clients,
        "seconds": seconds,
        "requests": total,
        "requests_per_second": round(total / seconds, 1),
        "by_kind_and_status": dict(sorted(load.counts.items())),
        "questions_answered": len(load.seconds),
        "median_seconds": round(statistics.median(load.seconds), 3) if load.seconds else None,
        "p99_seconds": round(sorted(load.seconds)[int(0.99 * len(load.seconds))], 3) if load.seconds else None,
        "wrong": load.wrong[:10],
        "left_at_the_end": left,
        "memory_mib_after_a_quarter_and_at_the_end": [round(size, 1) for size in sizes],
        "exit_code": code,
        "tracebacks_in_the_log": log.read_text().count("Traceback"),
    }


def faults(found: dict[str, Any]) -> list[str]:
    """What must not be."""
    first, last = found["memory_mib_after_a_quarter_and_at_the_end"]
    checks = {
        "wrong answers": found["wrong"],
        "samples left": any(found["left_at_the_end"].values()),
        "memory grew by more than a tenth": last > 1.1 * first,
        "exit code": found["exit_code"],
        "tracebacks": found["tracebacks_in_the_log"],
        "no question was answered": not found["questions_answered"],
    }
    return [name for name, bad in checks.items() if bad]


def main() -> None:
    """Measures once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model-dir", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model_dir or write_random_model(Path(folder) / "tiny", shape())
        found = measure(model, arguments.clients, arguments.seconds, Path(folder) / "server.log")
        print(json.dumps(found, indent=1))
        if problems := faults(found):
            print(Path(folder, "server.log").read_text()[-3000:], file=sys.stderr)
            raise SystemExit(", ".join(problems))


if __name__ == "__main__":
    main()
