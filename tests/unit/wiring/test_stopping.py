"""The first request stops, the second signal aborts, and signals are given back."""

import asyncio
import os
import signal

import pytest

from streambot.wiring.stopping import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_and_the_second_one_aborts(number):
    stop = StopRequest()
    aborted = []
    before = signal.getsignal(number)
    stop.listen(lambda: aborted.append(True))
    try:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)
        assert stop.reason == number.name
        assert not aborted
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.05)
        assert aborted == [True]
    finally:
        stop.ignore()
    assert signal.getsignal(number) in {before, signal.default_int_handler, signal.SIG_DFL}


async def test_a_request_made_early_counts_and_made_twice_aborts_nothing():
    stop = StopRequest()
    stop.request()
    aborted = []
    stop.listen(lambda: aborted.append(True))
    try:
        await asyncio.wait_for(stop.wait(), 5)
        stop.request()
        assert not aborted
        assert stop.reason == "request"
    finally:
        stop.ignore()
