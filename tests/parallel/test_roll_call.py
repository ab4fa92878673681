"""The roll call and what follows it, with threads in place of processes; nothing of JAX."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from aya_jax.config import UserError
from aya_jax.parallel import roll_call
from aya_jax.parallel.launch import Launch


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(roll_call, "GRACE", 0.5)


def join_all(address, members, timeout=10.0):
    """Joins in threads: members are (index, count, error); gives what each got, a `Peers` or an exception."""
    found = [None] * len(members)

    def one(number, index, count, error):
        try:
            found[number] = roll_call.join(Launch("test", address, index, count), timeout=timeout, error=error)
        except (UserError, roll_call.Ended) as raised:
            found[number] = raised

    threads = [threading.Thread(target=one, args=(n, *member)) for n, member in enumerate(members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return found


def watched(address, count=3):
    """`count` peers that watch each other; what `end` was called with, by process."""
    peers = join_all(address, [(i, count, None) for i in range(count)])
    ends = [[] for _ in peers]
    for peer, called in zip(peers, ends, strict=True):
        peer.watch(10, end=called.append)
    return peers, ends


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def die(peer):
    """What the operating system does to the connections of a process that is killed."""
    peer._leaving.set()  # it prints nothing
    for connection in list(peer._connections.values()):
        connection.socket.shutdown(socket.SHUT_RDWR)


def test_all_come_and_the_port_is_free_again(address):
    peers = join_all(address, [(i, 4, None) for i in (2, 0, 3, 1)])
    assert all(isinstance(peer, roll_call.Peers) for peer in peers)
    (first,) = [peer for peer in peers if peer.launch.index == 0]
    assert first.hosts == dict.fromkeys(range(4), socket.gethostname())
    with socket.create_server(("", int(address.rpartition(":")[2]))):  # as JAX's service does, while all stay connected
        pass


def test_who_is_missing_is_named_in_bounded_time(address):
    begin = time.monotonic()
    first, second = join_all(address, [(0, 5, None), (2, 5, None)], timeout=1.5)
    assert time.monotonic() - begin < 8
    assert str(first).startswith(f"process 0 of 5 (test) waited 2 s at {address} for processes 1, 3-4: started")
    assert isinstance(second, roll_call.Ended)


def test_no_process_0_is_said_with_the_reason(address):
    begin = time.monotonic()
    (alone,) = join_all(address, [(1, 2, None)], timeout=1.0)
    assert time.monotonic() - begin < 4
    assert f"process 1 of 2 (test) waited 1 s for process 0 at {address} (connection refused)" in str(alone)
    (lost,) = join_all("no-such-host.invalid:1234", [(1, 2, None)], timeout=0.5)
    assert "no-such-host.invalid:1234 (" in str(lost)


def test_a_port_in_use_is_said(address):
    with socket.create_server(("", int(address.rpartition(":")[2]))):
        (alone,) = join_all(address, [(0, 2, None)], timeout=1.0)
    assert f"cannot listen on port {address.rpartition(':')[2]}" in str(alone)
    assert "address already in use" in str(alone)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([(0, 3, None), (1, 3, None), (1, 3, None)], "two processes say that they are process 1 of 3"),
        ([(0, 3, None), (1, 2, None), (2, 3, None)], "process 1 on .* one of 2 processes, process 0 as one of 3"),
        ([(0, 3, None), (1, 3, "no such file"), (2, 3, None)], "process 1 of 3 on .*: no such file"),
        ([(0, 3, "no such file"), (1, 3, "no such file"), (2, 3, "no such file")], "^no such file$"),
    ],
)
def test_what_does_not_fit_is_said_once(address, members, message):
    first, *others = join_all(address, members)
    assert isinstance(first, UserError)
    with pytest.raises(UserError, match=message):
        raise first
    assert all(isinstance(other, roll_call.Ended) for other in others)


def test_strangers_are_sent_away(address):
    host, port = address.split(":")
    found = []
    thread = threading.Thread(target=lambda: found.extend(join_all(address, [(0, 2, None)])))
    thread.start()
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert stranger.recv(1) == b""
            break
        time.sleep(0.05)
    else:
        pytest.fail("nobody listened")
    found += join_all(address, [(1, 2, None)])
    thread.join()
    assert all(isinstance(peers, roll_call.Peers) for peers in found)


def test_a_process_0_that_is_started_again_is_found(address):
    """The first one was killed when this process had called it already."""
    found = []
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))) as first:
        thread = threading.Thread(target=lambda: found.extend(join_all(address, [(1, 2, None)])))
        thread.start()
        first.accept()[0].close()
    found += join_all(address, [(0, 2, None)])
    thread.join()
    assert all(isinstance(peers, roll_call.Peers) for peers in found)


def test_a_process_that_dies_ends_all_and_process_0_says_which(address, capsys):
    (first, second, third), ends = watched(address)
    die(third)
    wait_for(lambda: ends[0] and ends[1])
    assert ends[0] == ends[1] == [1]
    printed = capsys.readouterr().err
    assert printed.count("process 2 of 3 on") == 1
    assert "gone without a word" in printed
    assert "process 1 of 3 on" in printed  # only points to process 0
    assert first is not second


def test_process_0_dying_ends_the_others(address, capsys):
    (first, *_), ends = watched(address)
    die(first)
    wait_for(lambda: ends[1] and ends[2])
    printed = capsys.readouterr().err
    assert printed.count(f"process 0 at {address} is gone") == 2


def test_one_process_failing_is_said_by_process_0_and_ends_all(address, capsys):
    (_, second, _), ends = watched(address)
    said = second.fail("a store is corrupt")
    wait_for(lambda: ends[0] and ends[2])
    printed = capsys.readouterr().err
    assert "process 1 of 3 on" in printed
    assert printed.count("a store is corrupt") == 1
    assert "a store is corrupt" not in said  # in its own output: who says it


def test_the_same_error_of_all_is_said_once(address):
    peers, ends = watched(address)
    said = [None] * 3

    def fail(number):
        said[number] = peers[number].fail("the batch does not divide" if number < 2 else "another matter")

    threads = [threading.Thread(target=fail, args=(number,)) for number in (2, 1, 0)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(20)
    assert said[0].count("the batch does not divide") == 1
    assert "process 2 of 3" in said[0]
    assert "another matter" in said[0]
    assert all(text.endswith("process 0 says why.") for text in said[1:])
    assert ends == [[], [], []]


def test_a_good_end_ends_nobody_in_any_order(address, capsys):
    peers, ends = watched(address)
    for peer in (peers[1], peers[0], peers[2]):
        peer.finish()
        time.sleep(0.1)
    wait_for(lambda: all(peer._closed.is_set() for peer in peers))
    assert ends == [[], [], []]
    assert capsys.readouterr().err == ""
