"""How the processes of a run find each other before JAX starts, and notice when one of them goes. Plain sockets, no JAX.

JAX's own start ends in an abort with a C++ stack where a process is missing, and says neither which nor of how many. So
process 0 first takes a roll call on the coordinator's port: every other process connects and says who it is, and when all
are there process 0 leaves the port to JAX's service. The connections stay open. The operating system closes those of a
process that dies, so the others hear of it at once instead of waiting in a collective, and a process that ends in an error
can say so. Messages are lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from aya_jax.config.errors import UserError
from aya_jax.parallel.launch import Launch

GRACE = 5.0  # seconds for the others' words when something went wrong
_GREETING = "aya_jax 1"  # of another version: refused
_POINTER = "process {index} of {count} on {host} ends; process 0 says why."


class Connection:
    """Lines of JSON over a socket."""

    def __init__(self, raw: socket.socket):
        self.socket = raw
        self._received = b""

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends one message; a peer that is gone is noticed by reading, not here."""
        with contextlib.suppress(OSError):
            self.socket.settimeout(GRACE)
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None) -> dict[str, Any] | None:
        """The next message; None where the peer has closed the connection or is no longer there.

        Raises:
          TimeoutError: nothing came in so many seconds.
          ValueError: what came is no message.
        """
        self.socket.settimeout(timeout)
        while b"\n" not in self._received:
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                if timeout is None:
                    return None  # the kernel's keep-alive gave up
                raise
            except OSError:
                return None
            if not more:
                return None
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("not a message")
        return message

    def is_open(self) -> bool:
        """Whether the peer has not closed the connection."""
        self.socket.settimeout(0.0)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def keep_alive(self, seconds: int) -> None:
        """Has the kernel ask now and then whether the peer's machine is there, and give up after so many seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        every = max(1, seconds // 5)
        for name, value in (("TCP_KEEPIDLE", every), ("TCP_KEEPINTVL", every), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):
                self.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


def join(launch: Launch, *, timeout: float, error: str | None = None) -> Peers:
    """Waits until all processes of the run are there.

    Args:
      launch: this process's place.
      timeout: seconds to wait for the others.
      error: why this process cannot take part; the others are told, and nothing is started anywhere.

    Raises:
      UserError: on process 0, what is the matter: a process is missing, two have one number, one cannot take part.
      Ended: on the others, where process 0 says what is the matter.
    """
    hello = {
        "greeting": _GREETING,
        "index": launch.index,
        "count": launch.count,
        "host": socket.gethostname(),
        "error": error,
    }
    if launch.index == 0:
        return _call(launch, hello, timeout)
    return _answer(launch, hello, timeout)


class Ended(Exception):
    """This process cannot go on, and process 0 says why; the message only points there."""


class Peers:
    """The connections of a run that has begun.

    Attributes:
      launch: this process's place.
      hosts: host of each process by its number; of process 0 alone elsewhere.
    """

    def __init__(self, launch: Launch, connections: Mapping[int, Connection], hosts: Mapping[int, str]):
        self.launch, self.hosts = launch, dict(hosts)
        self._connections = dict(connections)
        self._errors: dict[int, str] = {}  # what processes said as they ended
        self._leaving = threading.Event()  # this process ends, well or not, by its own account
        self._told = threading.Event()  # and has told the others
        self._closed = threading.Event()

    def watch(self, timeout: int, end: Callable[[int], None] = os._exit) -> None:
        """Starts a thread that ends this process when another is gone or says that it failed.

        Args:
          timeout: seconds after which a machine that does not answer counts as gone.
          end: ends the process with an exit code; the main thread may be waiting in a collective for ever.
        """
        for connection in self._connections.values():
            connection.keep_alive(timeout)
        threading.Thread(target=self._watch, args=(end,), name="aya-peers", daemon=True).start()

    def finish(self) -> None:
        """Says that this process has done its part, after all have (JAX's shutdown barrier)."""
        self._leaving.set()
        for connection in list(self._connections.values()):
            connection.send({"done": True})
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_WR)

    def fail(self, message: str) -> str:
        """Tells the others that this process ends in an error, and returns what to print here.

        Errors that several processes have are printed once, by process 0.
        """
        self._leaving.set()
        self._tell_all(message)
        self._told.set()
        if self.launch.index:
            heard = self._closed.wait(2 * GRACE)  # process 0 prints it, and hangs up
            return self._pointer() if heard and 0 in self._errors else message
        self._closed.wait(GRACE)
        others = [f"{self._name(i)}: {text}" for i, text in sorted(self._errors.items()) if text != message]
        return "\n".join([message, *others])

    def _watch(self, end: Callable[[int], None]) -> None:
        with selectors.DefaultSelector() as selector:
            for index, connection in self._connections.items():
                selector.register(connection.socket, selectors.EVENT_READ, index)
            while self._connections:
                for key, _ in selector.select():
                    index = key.data
                    connection = self._connections[index]
                    if self._take(index, connection, end):  # a process says one thing and goes
                        selector.unregister(key.fileobj)
                        connection.close()
                        self._connections.pop(index)
        self._closed.set()

    def _take(self, index: int, connection: Connection, end: Callable[[int], None]) -> bool:
        """Deals with what came from a process; True where nothing more is to come."""
        try:
            message = connection.receive(None)
        except ValueError:
            message = None
        if message is not None and message.get("done"):
            return True
        if message is not None:
            self._errors[index] = str(message.get("error", ""))
        if message is not None and self.launch.index == 0:
            self._told.wait(GRACE)  # the main thread is likely to find the same error, and prints it
        if self._leaving.is_set():
            return True
        self._leaving.set()
        if self.launch.index == 0:
            text = (
                f"{self._name(index)} is gone without a word: killed, out of memory, or its machine is down (its own output "
                "may say more). What was saved stays; the same command goes on from there."
                if message is None
                else f"{self._name(index)}: {message['error']}"
            )
            self._tell_all(text)
            _print(text)
        elif message is None:
            _print(
                f"process {self.launch.index} of {self.launch.count} ends: process 0 at {self.launch.coordinator} is gone "
                "without a word: killed, out of memory, or its machine is down. What was saved stays; the same command goes "
                "on from there."
            )
        else:
            _print(self._pointer())
        end(1)
        return True

    def _tell_all(self, message: str) -> None:
        for connection in list(self._connections.values()):
            connection.send({"error": message})

    def _name(self, index: int) -> str:
        return f"process {index} of {self.launch.count} on {self.hosts.get(index, '?')}"

    def _pointer(self) -> str:
        return _POINTER.format(index=self.launch.index, count=self.launch.count, host=socket.gethostname())


def _call(launch: Launch, hello: Mapping[str, Any], timeout: float) -> Peers:
    """Process 0: waits for all others, and tells them to go on or what is the matter."""
    callers: list[Connection] = []
    members: dict[int, Connection] = {}
    hosts = {0: hello["host"]}
    problem = hello["error"]
    end = time.monotonic() + timeout
    with contextlib.closing(_listen(launch)) as listener:
        while len(members) < launch.count - 1:
            if problem is not None:  # the others need only be told
                end = min(end, time.monotonic() + GRACE)
            arrived = _next_arrival(listener, end)
            if arrived is None:
                break
            connection, other = arrived
            callers.append(connection)
            problem = problem or _problem(launch, other, members)
            members[other["index"]] = connection
            hosts[other["index"]] = other["host"]
    if problem is None and len(members) < launch.count - 1:
        problem = (
            f"process 0 of {launch.count} ({launch.source}) waited {timeout:.0f} s at {launch.coordinator} for "
            f"{_listed(set(range(1, launch.count)) - members.keys())}: started, and able to reach that address? "
            "--join_timeout=SECONDS waits longer."
        )
    for connection in callers:
        connection.send({"go": True} if problem is None else {"stop": problem})
    if problem is not None:
        raise UserError(problem)
    return Peers(launch, members, hosts)


def _answer(launch: Launch, hello: Mapping[str, Any], timeout: float) -> Peers:
    """Another process: calls process 0 until it is there, and waits for its word."""
    host, _, port = launch.coordinator.rpartition(":")
    end = time.monotonic() + (timeout if hello["error"] is None else min(timeout, 2 * GRACE))
    why = ""
    while time.monotonic() < end:
        try:
            connection = Connection(socket.create_connection((host.strip("[]"), int(port)), timeout=GRACE))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            time.sleep(0.2)
            continue
        connection.send(hello)
        try:
            word = connection.receive(timeout + 2 * GRACE)
        except (TimeoutError, ValueError):
            word, why = None, "what listens there is no run of aya that begins"
        else:
            why = "it hung up: another program's port, or a run that has begun without this process?"
        if word is None:
            connection.close()
            time.sleep(0.2)
        elif "go" in word:
            return Peers(launch, {0: connection}, {launch.index: hello["host"]})
        else:
            raise Ended(_POINTER.format(index=launch.index, count=launch.count, host=hello["host"]))
    raise UserError(
        hello["error"]
        or f"process {launch.index} of {launch.count} ({launch.source}) waited {timeout:.0f} s for process 0 at "
        f"{launch.coordinator} ({why}): started, and is the address right and open? --join_timeout=SECONDS waits longer."
    )


def _listen(launch: Launch) -> socket.socket:
    """The coordinator's port on every address of this machine; free for JAX's service once closed."""
    port = int(launch.coordinator.rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(
            f"process 0 of {launch.count} ({launch.source}) cannot listen on port {port} of {launch.coordinator}: "
            f"{(error.strerror or str(error)).lower()}; end what uses it, or choose another port."
        ) from error


def _next_arrival(listener: socket.socket, end: float) -> tuple[Connection, dict[str, Any]] | None:
    """The next process that says who it is, or None when the time is over; other visitors are sent away."""
    while (left := end - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            connection = Connection(listener.accept()[0])
        except OSError:
            continue
        with contextlib.suppress(TimeoutError, ValueError):
            hello = connection.receive(GRACE)
            if hello is not None and isinstance(hello.get("index"), int) and "greeting" in hello:
                return connection, hello
        connection.close()
    return None


def _problem(launch: Launch, other: Mapping[str, Any], members: Mapping[int, Connection]) -> str | None:
    """Why a run cannot begin with this process, if it cannot."""
    index, name = other["index"], f"process {other['index']} on {other['host']}"
    if other["greeting"] != _GREETING:
        return f"{name} runs another version of aya_jax ({other['greeting']!r}, here {_GREETING!r}); install one everywhere."
    if other["count"] != launch.count:
        return f"{name} was started as one of {other['count']} processes, process 0 as one of {launch.count}."
    if not 0 < index < launch.count:
        return f"{name}: a second process with that number; each of the {launch.count} needs its own, from 0."
    if index in members and members[index].is_open():
        return f"two processes say that they are process {index} of {launch.count}; each needs its own number."
    if other["error"] is not None:
        return f"process {index} of {launch.count} on {other['host']}: {other['error']}"
    return None


def _listed(numbers: set[int]) -> str:
    """ "process 3", or "processes 1, 4-6"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"process{'es' if len(numbers) > 1 else ''} {shown}"


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)
