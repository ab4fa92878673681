"""RemoteGenerator against a server that misbehaves on purpose; the server counts what it was asked."""

import collections
import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate

import pytest

from aya_jax.config import UserError
from aya_jax.inference.protocol import Request
from aya_jax.inference.remote import FailedResponse, RemoteGenerator
from tests.inference.remote_endpoint import RemoteEndpoint, Reply, chat, echo, error, question, questions


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def ask(endpoint, requests, **fields):
    """The responses by id."""
    with RemoteGenerator(endpoint.config(**fields)) as generator:
        responses = list(generator.generate(requests))
    assert len({response.id for response in responses}) == len(responses)
    return {response.id: response for response in responses}


def texts(responses):
    return {name: response.completions[0].text for name, response in responses.items()}


def first(*replies):
    """An answer function: for each question these replies in turn, then an echo."""
    seen, lock = collections.Counter(), threading.Lock()

    def answer(body):
        name = body["messages"][-1]["content"]
        with lock:
            number = seen[name]
            seen[name] += 1
        return replies[number] if number < len(replies) else echo(body)

    return answer


def test_every_request_gets_its_own_answer():
    with RemoteEndpoint() as endpoint:
        responses = ask(endpoint, [question(f"q{i}", seed=i) for i in range(40)])
    assert texts(responses) == {f"q{i}": f"q{i}/{i}" for i in range(40)}
    assert set(endpoint.paths) == {"/v1/chat/completions"}
    assert responses["q3"].prompt_tokens == 7
    assert responses["q3"].completions[0].finish_reason == "stop"


def test_answers_do_not_depend_on_the_order_in_which_they_come():
    def answer(body):
        return Reply(echo(body).content, after=random.random() * 0.05)

    with RemoteEndpoint(answer) as endpoint:
        requests = [question(f"q{i}", seed=i) for i in range(30)]
        forward, backward = ask(endpoint, requests), ask(endpoint, requests[::-1])
    assert texts(forward) == texts(backward) == {f"q{i}": f"q{i}/{i}" for i in range(30)}


@pytest.mark.parametrize("concurrency", [1, 5])
def test_concurrency_is_reached_and_never_exceeded(concurrency):
    with RemoteEndpoint(lambda body: Reply(echo(body).content, after=0.02)) as endpoint:
        ask(endpoint, questions(6 * concurrency), concurrency=concurrency)
    assert endpoint.most == concurrency


def test_concurrency_holds_over_several_runs_of_one_generator():
    with (
        RemoteEndpoint(lambda body: Reply(echo(body).content, after=0.02)) as endpoint,
        RemoteGenerator(endpoint.config(concurrency=3)) as generator,
    ):
        threads = [threading.Thread(target=lambda: list(generator.generate(questions(9)))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert endpoint.most == 3
    assert len(endpoint.bodies) == 27


def test_requests_are_read_as_there_is_room():
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield question(f"q{len(read)}")

    with RemoteEndpoint() as endpoint, RemoteGenerator(endpoint.config(concurrency=2)) as generator:
        responses = generator.generate(endless())
        for count in range(1, 20):
            next(responses)
            assert len(read) <= count + 4
        responses.close()


def test_an_answer_does_not_wait_for_the_next_request():
    with RemoteEndpoint() as endpoint, RemoteGenerator(endpoint.config()) as generator:
        release = threading.Event()

        def slow():
            yield question("first")
            for _ in range(200):  # the reader is asked again only once nothing is there to be given out
                if generator.stats().prompt_tokens:
                    break
                time.sleep(0.01)
            time.sleep(0.05)
            yield question("second")
            assert release.wait(2), "read before the first answer was given out"
            yield question("third")

        responses = generator.generate(slow())
        assert next(responses).id == "first"
        release.set()
        assert {response.id for response in responses} == {"second", "third"}


# Failures that pass ----------------------------------------------------------------------------------------------------

PASSING = {
    "429": error(429, "slow down"),
    "500": error(500, "oh"),
    "502 with a page": Reply(b"<html>Bad gateway</html>", 502, {"Content-Type": "text/html"}),
    "503": error(503, "loading"),
    "408": error(408, "late"),
    "409": error(409, "conflict"),
    "425": error(425, "early"),
    "529": error(529, "overloaded"),
    "cut in the content": Reply(chat("never"), cut=40),
    "cut before it": Reply(chat("never"), cut=0),
    "half a JSON": Reply(b'{"choices": [{"mess'),
    "empty": Reply(b""),
    "a page": Reply(b"<!DOCTYPE html><p>Sign in</p>", headers={"Content-Type": "text/html"}),
    "not UTF-8": Reply(b"\xff\xfe{}"),
    "not gzip": Reply(b"abc", headers={"Content-Encoding": "gzip"}),
    "NaN": Reply(json.dumps(chat("never", created=float("nan"))).encode()),
    "a list": Reply(b"[]"),
    "no choices": Reply({"id": "x", "usage": {}}),
    "empty choices": Reply({"choices": []}),
    "200 with a 502": Reply({"error": {"code": 502, "message": "upstream"}}),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_tried_again(kind):
    with RemoteEndpoint(first(PASSING[kind], PASSING[kind])) as endpoint:
        responses = ask(endpoint, questions(3), retries=2)
    assert texts(responses) == {f"q{i}": f"q{i}/0" for i in range(3)}
    assert collections.Counter(endpoint.asked()) == {"q0": 3, "q1": 3, "q2": 3}


def test_a_hanging_server_is_given_up_and_asked_again():
    with RemoteEndpoint(first(Reply(chat("late"), after=5.0))) as endpoint:
        started = time.monotonic()
        responses = ask(endpoint, questions(2), timeout=0.3)
    assert texts(responses) == {"q0": "q0/0", "q1": "q1/0"}
    assert time.monotonic() - started < 4


def test_a_dribbling_server_is_given_up():
    """Each byte comes soon, and the whole never: the limit is on the call and not on a read."""
    with RemoteEndpoint(lambda body: Reply(chat("x" * 100), dribble=0.05)) as endpoint:
        with pytest.raises(UserError, match=r"no answer within 0\.3 s"):
            ask(endpoint, questions(1), timeout=0.3, retries=1)
        assert len(endpoint.bodies) == 2


def test_no_more_than_the_retries():
    with RemoteEndpoint(lambda body: error(500, "boom")) as endpoint, pytest.raises(UserError) as raised:
        ask(endpoint, questions(1), retries=3)
    assert len(endpoint.bodies) == 4
    assert all(part in str(raised.value) for part in ("'q0'", "500", "boom", "max_failures"))


def slept_by(endpoint, **fields):
    """What a generator sleeps, its sleep being cut short."""
    import asyncio

    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        await asyncio.sleep(0)

    with RemoteGenerator(endpoint.config(**fields), sleep=sleep) as generator:
        list(generator.generate(questions(1)))
    return slept


@pytest.mark.parametrize(
    ("header", "value", "seconds"),
    [
        ("Retry-After", "17", (17, 17.01)),
        ("Retry-After", "in five", (0, 0.01)),
        ("retry-after-ms", "2500", (2.5, 2.51)),
        ("Retry-After", "a date", (50, 100.01)),
    ],
)
def test_the_endpoint_says_when_to_come_back(header, value, seconds):
    if value == "a date":  # of now, not of when the tests were collected
        value = formatdate(time.time() + 100, usegmt=True)
    with RemoteEndpoint(first(Reply({"error": "x"}, 429, {header: value}))) as endpoint:
        slept = slept_by(endpoint)
    assert seconds[0] <= slept[0] <= seconds[1]


def test_who_asks_for_too_long_ends_the_run():
    reply = error(429, "daily quota", retry_after="86400")
    with RemoteEndpoint(lambda body: reply) as endpoint, pytest.raises(UserError, match="longest_wait"):
        ask(endpoint, questions(1), max_failures=100)
    assert len(endpoint.bodies) == 1


# Failures that stay ----------------------------------------------------------------------------------------------------

LASTING = {
    "400": (error(400, "unknown field 'seed'", x_request_id="req_7"), ("400", "req_7", "unknown field 'seed'")),
    "413": (error(413, "too long"), ("413", "too long")),
    "422": (Reply({"message": "bad role"}, 422), ("422", "bad role")),
    "200 with an error": (Reply({"error": {"message": "no such", "code": "x"}}), ("200", "no such")),
    "filtered": (Reply(chat("", "content_filter")), ("content_filter", "withheld")),
    "null": (Reply(chat(None)), ("null",)),
    "null for length": (Reply(chat(None, "length")), ("null", "max_tokens")),
    "tools": (Reply(chat(None, "tool_calls")), ("tool_calls",)),
    "no reason": (Reply(chat("x", None)), ("finish_reason None",)),
    "two choices": (Reply({**chat("x"), "choices": chat("x")["choices"] * 2}), ("2 choices",)),
    "no usage": (Reply({**chat("x"), "usage": None}), ("usage",)),
    "a number for a text": (Reply(chat(5)), ("str", "5")),
}


@pytest.mark.parametrize("kind", LASTING)
def test_what_stays_is_asked_once_and_named(kind):
    reply, parts = LASTING[kind]
    with RemoteEndpoint(lambda body: reply) as endpoint, pytest.raises(UserError) as raised:
        ask(endpoint, questions(1))
    assert len(endpoint.bodies) == 1
    assert all(part in str(raised.value) for part in ("'q0'", *parts)), str(raised.value)


@pytest.mark.parametrize("kind", LASTING)
def test_a_poisoned_prompt_costs_nobody_else(kind):
    reply, parts = LASTING[kind]

    def answer(body):
        return reply if body["messages"][-1]["content"] == "q4" else echo(body)

    with RemoteEndpoint(answer) as endpoint:
        responses = ask(endpoint, questions(30), max_failures=1)
    failed = responses.pop("q4")
    assert texts(responses) == {f"q{i}": f"q{i}/0" for i in range(30) if i != 4}
    assert isinstance(failed, FailedResponse)
    assert failed.completions == ()
    assert all(part in failed.error for part in parts)


def test_more_failures_than_allowed_end_the_run():
    with RemoteEndpoint(lambda body: error(400, "no")) as endpoint, pytest.raises(UserError, match="max_failures = 3"):
        ask(endpoint, questions(50), max_failures=3, concurrency=2)
    assert len(endpoint.bodies) <= 3 + 1 + 4


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        (error(401, "bad key"), ("401", "bad key", "api_key_file")),
        (error(402, "pay"), ("402",)),
        (error(403, "not yours"), ("403", "api_key_file")),
        (error(404, "no model m"), ("404", "model = 'm'", "base_url")),
        (Reply(b"", 301, {"Location": "https://elsewhere/v1"}), ("301", "https://elsewhere/v1", "base_url")),
        (
            Reply({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, 429),
            ("insufficient", "exceeded your quota"),
        ),
    ],
)
def test_what_concerns_everyone_ends_the_run_at_once(reply, parts):
    with RemoteEndpoint(lambda body: reply) as endpoint, pytest.raises(UserError) as raised:
        ask(endpoint, questions(50), max_failures=1000, concurrency=2)
    assert len(endpoint.bodies) <= 6
    assert all(part in str(raised.value) for part in parts[-1:] + parts[:-1] if part != "insufficient")


def test_nobody_there():
    with RemoteEndpoint() as endpoint:
        config = endpoint.config(retries=2, max_failures=1000)
    with RemoteGenerator(config) as generator, pytest.raises(UserError, match=r"no connection.*base_url"):
        list(generator.generate(questions(50)))


def test_a_403_after_an_answer_is_about_the_prompt():
    def answer(body):
        return error(403, "moderated") if body["messages"][-1]["content"] == "q1" else echo(body)

    with RemoteEndpoint(answer) as endpoint:
        responses = ask(endpoint, questions(3), max_failures=1, concurrency=1)
    assert isinstance(responses["q1"], FailedResponse)


def test_calls_under_way_are_waited_for_when_a_run_ends_in_an_error():
    arrived = threading.Barrier(4)

    def answer(body):
        arrived.wait(10)
        return error(400, "no") if body["messages"][-1]["content"] == "q0" else Reply(echo(body).content, after=0.2)

    got = []
    with RemoteEndpoint(answer) as endpoint, RemoteGenerator(endpoint.config(concurrency=4)) as generator:
        with pytest.raises(UserError, match="400"):
            got.extend(response.id for response in generator.generate(questions(100)))
        assert sorted(got) == ["q1", "q2", "q3"]
        assert len(endpoint.bodies) == 4


def test_a_request_that_cannot_be_sent_makes_no_call():
    requests = [*questions(2), Request(id="text", prompt="Once"), question("after")]
    got = []
    with RemoteEndpoint() as endpoint, RemoteGenerator(endpoint.config()) as generator:
        with pytest.raises(UserError, match=r"'text'.*prompt.*completions"):
            got.extend(response.id for response in generator.generate(requests))
        assert set(endpoint.asked()) <= {"q0", "q1"}
        assert sorted(got) == sorted(endpoint.asked())


def test_ids_are_unique():
    with (
        RemoteEndpoint(lambda body: Reply(echo(body).content, after=0.1)) as endpoint,
        pytest.raises(UserError, match="another one has this id"),
    ):
        ask(endpoint, [question("a"), question("a")])


# The key ---------------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_never_shown(tmp_path):
    file = tmp_path / "key"
    file.write_text("sk-secret\n")
    replies = first(error(500, "Incorrect key sk-secret"))
    with RemoteEndpoint(replies) as endpoint:
        with pytest.raises(UserError) as raised:
            ask(endpoint, questions(1), api_key_file=str(file), retries=0)
        assert "Incorrect key (the key)" in str(raised.value)
        ask(endpoint, questions(1), api_key_file=str(file), cache_dir=str(tmp_path / "cache"))
    assert {headers["authorization"] for headers in endpoint.headers} == {"Bearer sk-secret"}
    kept = [entry.read_text() for entry in (tmp_path / "cache").rglob("*.json")]
    assert len(kept) == 1
    assert "sk-secret" not in kept[0]


def test_no_key_no_header():
    with RemoteEndpoint() as endpoint:
        ask(endpoint, questions(1))
    assert "authorization" not in endpoint.headers[0]


# Limits ----------------------------------------------------------------------------------------------------------------


def test_requests_per_minute():
    with RemoteEndpoint() as endpoint:
        ask(endpoint, questions(6), requests_per_minute=1200.0)
    gaps = [later - earlier for earlier, later in zip(endpoint.times, endpoint.times[1:], strict=False)]
    assert endpoint.times[-1] - endpoint.times[0] >= 5 * 0.05 - 0.03  # the first may arrive late
    assert sum(gaps) / len(gaps) < 1.0


def test_max_cost():
    with RemoteEndpoint() as endpoint, pytest.raises(UserError, match="max_cost"):
        # 7 prompt and 3 new tokens: 0.7 + 0.6 = 1.3 an answer; the third is begun at 2.6 and the fourth would be at 3.9.
        ask(endpoint, questions(20), input_price=1e5, output_price=2e5, max_cost=3.0, concurrency=1)
    assert len(endpoint.bodies) == 3


def test_stats(tmp_path):
    with RemoteEndpoint(first(error(500, "x"))) as endpoint:
        config = endpoint.config(cache_dir=str(tmp_path))
        with RemoteGenerator(config) as generator:
            list(generator.generate(questions(3)))
            list(generator.generate(questions(4)))
            stats = generator.stats()
    assert (stats.calls, stats.retries, stats.cached, stats.failed) == (8, 4, 3, 0)
    assert (stats.prompt_tokens, stats.new_tokens) == (28, 12)


# The cache -------------------------------------------------------------------------------------------------------------


def test_an_answer_is_asked_for_once(tmp_path):
    with RemoteEndpoint() as endpoint:
        once = ask(endpoint, questions(10), cache_dir=str(tmp_path))
        again = ask(endpoint, questions(12), cache_dir=str(tmp_path), concurrency=3, timeout=5.0)
    assert len(endpoint.bodies) == 12
    assert {name: again[name] for name in once} == once


def test_other_sampling_is_another_question(tmp_path):
    others = [{}, {"seed": 1}, {"temperature": 0.5}, {"max_tokens": 9}, {"top_p": 0.9}, {"stop": ("x",)}]
    with RemoteEndpoint() as endpoint:
        for other in others * 2:
            ask(endpoint, [question("same", **other)], cache_dir=str(tmp_path))
        ask(endpoint, [question("same")], cache_dir=str(tmp_path), model="other")
        ask(endpoint, [question("same")], cache_dir=str(tmp_path), extra_body={"thinking": {"type": "disabled"}})
    assert len(endpoint.bodies) == len(others) + 2


def test_equal_questions_of_one_run_are_one_call(tmp_path):
    requests = [
        Request(id=f"r{i}", prompt=question("same").prompt, sampling=question("same").sampling) for i in range(8)
    ]
    counter = iter(range(100))
    with RemoteEndpoint(lambda body: Reply(chat(f"sample {next(counter)}"), after=0.05)) as endpoint:
        responses = ask(endpoint, requests, cache_dir=str(tmp_path))
        assert set(texts(responses).values()) == {"sample 0"}
        assert len(endpoint.bodies) == 1
        responses = ask(endpoint, requests)  # without a cache, every request is a call
    assert len(set(texts(responses).values())) == 8


@pytest.mark.parametrize("kind", LASTING)
def test_failures_are_not_kept(tmp_path, kind):
    with RemoteEndpoint(first(LASTING[kind][0])) as endpoint:
        failed = ask(endpoint, questions(1), cache_dir=str(tmp_path), max_failures=1)
        assert isinstance(failed["q0"], FailedResponse)
        assert texts(ask(endpoint, questions(1), cache_dir=str(tmp_path))) == {"q0": "q0/0"}


def test_closing_in_the_middle_loses_no_answer_that_came(tmp_path):
    with RemoteEndpoint(lambda body: Reply(echo(body).content, after=0.02)) as endpoint:
        config = endpoint.config(cache_dir=str(tmp_path), concurrency=4)
        with RemoteGenerator(config) as generator:
            responses = generator.generate(questions(1000))
            given = {next(responses).id for _ in range(10)}
            started = time.monotonic()
            responses.close()
        assert time.monotonic() - started < 2
        before = len(endpoint.bodies)
        assert set(ask(endpoint, [question(name) for name in given], cache_dir=str(tmp_path))) == given
    assert len(endpoint.bodies) == before


def test_closing_does_not_wait_for_a_hanging_call():
    def wait_for_answers():
        with pytest.raises(UserError, match="closed"):
            list(generator.generate(questions(3)))

    with RemoteEndpoint(lambda body: Reply(echo(body).content, after=8.0)) as endpoint:
        generator = RemoteGenerator(endpoint.config())
        waiting = threading.Thread(target=wait_for_answers)
        waiting.start()
        while len(endpoint.bodies) < 3:
            time.sleep(0.005)
        started = time.monotonic()
        generator.close()
        waiting.join(5)
        assert not waiting.is_alive()
        assert time.monotonic() - started < 3
        with pytest.raises(UserError, match="closed"):
            list(generator.generate(questions(1)))


PROGRAM = """
import json, sys
from tests.inference.remote_endpoint import questions
from aya_jax.inference.remote import RemoteGenerator
from aya_jax.inference.remote_config import RemoteModelConfig
config = RemoteModelConfig(base_url=sys.argv[1], model="m", cache_dir=sys.argv[2], concurrency=4)
with RemoteGenerator(config) as generator:
    for response in generator.generate(questions(60)):
        print(response.id, response.completions[0].text, flush=True)
"""


def run_until(endpoint, cache, number, sign):
    """Runs the program, sends it a signal at the 'number'th answer, and returns what it gave out and when it ended."""
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, endpoint.url, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell that runs the tests in the background has its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    lines = []
    for line in process.stdout:
        lines.append(line.split())
        if len(lines) == number:
            process.send_signal(sign)
            sent = time.monotonic()
            break
    rest, errors = process.communicate(timeout=20)
    lines += [line.split() for line in rest.splitlines() if line.count(" ") == 1]
    return lines, errors, time.monotonic() - sent if number < 60 else 0.0


def test_a_call_holds_its_place_until_its_answer_is_on_disk(tmp_path, monkeypatch):
    asked_ahead = []

    def answer(body):
        asked_ahead.append(len(endpoint.bodies) - len(list(tmp_path.glob("??/[!.]*.json"))))
        return echo(body)

    def slow(*args, put):
        time.sleep(0.05)
        put(*args)

    with (
        RemoteEndpoint(answer) as endpoint,
        RemoteGenerator(endpoint.config(cache_dir=str(tmp_path), concurrency=3)) as generator,
    ):
        monkeypatch.setattr(generator.cache, "put", functools.partial(slow, put=generator.cache.put))
        assert len(list(generator.generate(questions(20)))) == 20
    assert max(asked_ahead) == 3


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path, sign):
    with RemoteEndpoint(lambda body: Reply(echo(body).content, after=0.02)) as endpoint:
        lines, errors, took = run_until(endpoint, tmp_path, 20, sign)
        assert took < 3
        assert sign == signal.SIGKILL or "KeyboardInterrupt" in errors
        first_run = list(endpoint.asked())
        endpoint.bodies.clear()
        with RemoteGenerator(endpoint.config(cache_dir=str(tmp_path))) as generator:
            responses = {response.id: response for response in generator.generate(questions(60))}
    given = {name for name, _ in lines}
    assert texts(responses) == {f"q{i}": f"q{i}/0" for i in range(60)}
    assert len(given) >= 20
    assert not given & set(endpoint.asked())  # nothing that was given out is asked again
    assert len(first_run) + len(endpoint.asked()) <= 60 + 4  # nothing is, but for the calls that were under way


def test_processes_share_a_cache(tmp_path):
    with RemoteEndpoint(lambda body: Reply(echo(body).content, after=0.005)) as endpoint:
        commands = [[sys.executable, "-c", PROGRAM, endpoint.url, str(tmp_path)]] * 2
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for command in commands
        ]
        outputs = [process.communicate(timeout=30)[0] for process in running]
    expected = sorted(f"q{i} q{i}/0" for i in range(60))
    assert [sorted(output.splitlines()) for output in outputs] == [expected, expected]
    assert all(json.loads(file.read_text()) for file in tmp_path.rglob("*.json"))
