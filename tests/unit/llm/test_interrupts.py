import signal
import threading

import pytest

from pellucid.serving.interrupts import HeldInterrupts


def test_an_interrupt_waits_for_the_end():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with HeldInterrupts():
            signal.raise_signal(signal.SIGINT)
            reached.append("end of the block")
        reached.append("after the block")
    assert reached == ["end of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_callers_handler_gets_it():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with HeldInterrupts():
            signal.raise_signal(signal.SIGINT)
            assert seen == []
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_errors_pass_through_and_the_handler_comes_back():
    with pytest.raises(ZeroDivisionError), HeldInterrupts():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_another_thread_it_does_nothing():
    results = []

    def work():
        with HeldInterrupts():
            results.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [signal.default_int_handler]
