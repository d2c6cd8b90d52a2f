"""`python -m benchmarks.learning CLAIM --seeds N`: runs a claim, keeps every figure, prints a table."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.learning.claim import Claim, Line
from streambot.domain.errors import DataError

CLAIMS = ("learns", "specialise", "mixture", "adapts", "honest", "streams")
ON_REAL_BARS = ("real",)
"""Need the folder that `$STREAMBOT_DATA` names; no part of `all`."""
_MODULES = "benchmarks.learning"


def claim_of(name: str) -> Claim:
    """The claim of a name."""
    found: Claim = importlib.import_module(f"{_MODULES}.{name}").CLAIM
    return found


def tested(claim: Claim, config: msgspec.Struct, seeds: Sequence[int], out: Path) -> list[Line]:
    """Run all seeds; every line is written as soon as it is there."""
    lines: list[Line] = []
    with out.open("wb") as file:

        def keep(line: Line) -> None:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()

        tuned: dict[str, Any] = {} if claim.tune is None else claim.tune(config)
        keep({"claim": claim.says, "config": msgspec.to_builtins(config), "tuned": tuned})
        for seed in seeds:
            for line in claim.run(config, seed, tuned):
                keep(line)
                lines.append(line)
    return lines


def kept(out: Path) -> list[Line]:
    """The lines of a claim that was run before."""
    read = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    return [line for line in read if "seed" in line]


def main(argv: Sequence[str] | None = None) -> int:
    """Run claims; 0 also where one fails: the table says what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("claim", choices=(*CLAIMS, *ON_REAL_BARS, "all"))
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="seeds 0 to N - 1")
    parser.add_argument("--out", type=Path, help="folder of the raw lines; default: a new one")
    parser.add_argument("--quick", action="store_true", help="a smaller experiment, to see it run")
    parser.add_argument("--again", action="store_true", help="only the tables, of lines in --out")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        parser.error("at least one seed")
    torch.set_num_threads(1)
    folder = options.out or Path(tempfile.mkdtemp(prefix="streambot-learning-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLAIMS if options.claim == "all" else (options.claim,):
        claim, out, began = claim_of(name), folder / f"{name}.jsonl", time.process_time()
        if options.again:
            if not out.is_file():
                parser.error(f"no lines of {name} in {folder}: --out DIR, where they were kept")
            lines = kept(out)
        else:
            config = claim.quick if options.quick else claim.config
            try:
                lines = tested(claim, config, range(options.seeds), out)
            except DataError as error:
                parser.error(error.message)
            spent = time.process_time() - began
            print(f"{name}: {spent:.0f} CPU seconds, lines in {out}", file=sys.stderr)
        print(f"## {claim.says}\n\n{claim.summary(lines)}\n", flush=True)
    return 0
