"""What signals do to the process at each stage of its life; the rest of `gateway.server` is served in tests/integration."""

import asyncio
import signal

import pytest

from gateway import server


async def two_signals() -> None:
    """Returns when the loop has heard both: it hears signals in their order, and a third one is ours."""
    loop = asyncio.get_running_loop()
    heard = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, heard.set_result, None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.raise_signal(number)
    await heard
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_a_second_signal_while_opening_does_not_tear_the_cleanup() -> None:
    cleaned = False

    async def opening() -> None:
        nonlocal cleaned
        with server.signals() as stop:
            try:
                signal.raise_signal(signal.SIGTERM)
                await asyncio.get_running_loop().create_future()
            finally:
                assert stop.is_asked
                await two_signals()
                cleaned = True

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(opening())
    assert cleaned


async def test_a_signal_while_serving_begins_the_drain_once() -> None:
    drains: list[bool] = []
    with server.signals() as stop:
        stop.then(lambda: drains.append(True))
        await two_signals()
        assert drains == [True]
