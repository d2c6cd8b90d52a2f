"""`streambot tail` on Apache Kafka, where streams outlive their run: ticks can be had later, too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from streambot.adapters.broker import ApacheBroker
from tests.integration.cli.conftest import Run

pytestmark = pytest.mark.kafka


async def test_ticks_of_a_run_that_has_ended(run: Run, kafka_home: Path, tmp_path: Path) -> None:
    def steps(servers: str) -> None:
        done = run(
            "simulate", "-s", "max", "--run", "kept", "--bootstrap-servers", servers, "--json"
        )
        assert done.code == 0, done.err
        summary = json.loads(done.out)
        for arguments, count in (
            (["--from", "beginning"], summary["ticks"]),
            (["-n", "3"], 3),
            (["--from", "2020-12-15T15:59:30", "--where", "instrument == SPY"], 5 + 1),
            (["--from", "end"], 0),
        ):
            ended = run("tail", "ticks", "--json", *arguments)
            assert ended.code == 0, ended.err
            assert len(ended.out.splitlines()) == count, arguments
        assert (
            len(run("tail", "fills", "--json", "-n", "1000").out.splitlines()) == summary["fills"]
        )

    async with ApacheBroker(kafka_home, tmp_path / "broker") as broker:
        await asyncio.to_thread(steps, broker.address)
