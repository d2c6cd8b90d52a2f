"""`streambot doctor`: is everything here that a run needs, and does it work?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from streambot.cli import doctor_checks
from streambot.cli.console import console, emit
from streambot.cli.doctor_checks import Finding
from streambot.cli.groups import AsJson, single
from streambot.domain.errors import StreambotError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_CODES = {"broker": 5, "data": 4}
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "off": "dim"}


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: Python, packages, embedded broker, caches, disk, Kafka, data.

    Exit code 0 also with warnings. A check that fails gives 3; the broker's gives 5, the data's 4.
    """
    findings: list[Finding] = []
    for check in doctor_checks.CHECKS:
        for finding in _guarded(check):
            findings.append(finding)
            if not as_json:
                _show(finding)
    failed = [finding for finding in findings if finding.status == "fail"]
    warned = sum(finding.status == "warn" for finding in findings)
    if as_json:
        emit(
            "doctor",
            healthy=not failed,
            failed=len(failed),
            warnings=warned,
            checks=[finding._asdict() for finding in findings],
        )
    else:
        console().print(f"{len(failed)} failed, {warned} to look at", markup=False)
    if failed:
        raise typer.Exit(EXIT_CODES.get(failed[0].check, 3))


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Findings of a check; what goes wrong inside it is a finding, too."""
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        yield from check()
    except StreambotError as error:
        yield Finding("fail", name, error.message, error.hint)
    except Exception as error:  # noqa: BLE001  # a doctor reports what it meets
        yield Finding("fail", name, f"{type(error).__name__}: {error}")


def _show(finding: Finding) -> None:
    from rich.text import Text

    line = Text.assemble(
        (f"{finding.status:<5}", _STYLES[finding.status]), f" {finding.check:<14} {finding.detail}"
    )
    console().print(line)
    if finding.hint:
        console().print(f"{'':21}try: {finding.hint}", style="dim", markup=False)


app = single(doctor)
