"""The first signal is a request, the second does what it usually does."""

import signal
import threading
from collections.abc import Iterator

import pytest

from micronet_cli.training.interrupt import StopRequest


@pytest.fixture(autouse=True)
def python_handles_interrupts() -> Iterator[None]:
    """A shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_and_gives_the_old_handler_back(number):
    before = signal.getsignal(number)
    with StopRequest() as request:
        assert not request.asked
        signal.raise_signal(number)
        assert request.asked
        assert signal.getsignal(number) == before


def test_second_interrupt_is_a_keyboard_interrupt():
    with StopRequest():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_as_before_after_the_block():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_request_is_logged_by_the_signals_name(caplog):
    with StopRequest():
        signal.raise_signal(signal.SIGTERM)
    assert "SIGTERM: saving and stopping after this step" in caplog.text


def test_another_thread_sets_no_handlers():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
