import os
import signal
import threading

import pytest

from aya_jax.training.signals import StopRequest


def test_sigterm_asks_for_an_end_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        assert not stop.interrupted
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_ctrl_c_ends_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        assert stop.interrupted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_after_sigterm_does_not_lose_the_save():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.interrupted


def test_outside_the_main_thread_signals_are_left_alone():
    handlers = []

    def body():
        with StopRequest():
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_of_several_processes_ctrl_c_is_passed_on_as_sigterm_once():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))  # JAX's place
    try:
        with StopRequest(processes=2) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == [signal.SIGTERM]
            assert not stop.interrupted
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
