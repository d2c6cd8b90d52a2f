"""The table of settings in `docs/operations.md`, made from the settings themselves.

    python -m tools.settings_table        # writes it; a test compares

Names, variables, flags and defaults come from `domain.setting_table`, what they mean from the docstring of
`SimulationConfig`.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any, cast

from typer.main import get_command

from streambot.cli.main import app
from streambot.domain.config import SETTINGS, KafkaSecurity, SimulationConfig, shown

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
_OWN_WORDS = {
    "start": "first moment to replay; a date: its first session. Empty: the first bar",
    "end": "where to stop; a date: behind its last session. Empty: the last bar",
    "kafka.security_protocol": "`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`",
    "kafka.sasl_mechanism": "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`",
    "kafka.sasl_username": "user",
    "kafka.sasl_password": "password: only from the environment, or from the file that `kafka_sasl_password_file` names",
}


def meanings() -> dict[str, str]:
    """What each field means, from the `Attributes:` of the configuration's docstrings."""
    found: dict[str, str] = {}
    for prefix, owner in (("", SimulationConfig), ("kafka.", KafkaSecurity)):
        text = inspect.getdoc(owner) or ""
        _, _, attributes = text.partition("Attributes:")
        for names, meaning in re.findall(
            r"^ {4}([a-z_, ]+): ((?:.|\n(?! {4}\S))+)", attributes, re.MULTILINE
        ):
            for name in names.split(", "):
                found[prefix + name] = (
                    re.sub(r"\s+", " ", meaning).strip().rstrip(".").replace("None: ", "empty: ")
                )
    return found | _OWN_WORDS


def flags(name: str = "simulate") -> set[str]:
    """The flags that a command, or one of its own commands, takes."""
    root = cast("Any", get_command(app))
    context = root.make_context("streambot", [], resilient_parsing=True)
    command = root.get_command(context, name)
    names = command.list_commands(context) if hasattr(command, "list_commands") else ()
    inner = [command.get_command(context, name) for name in names]
    parameters = (parameter for one in (command, *inner) for parameter in one.params)
    return {
        flag for parameter in parameters for flag in (*parameter.opts, *parameter.secondary_opts)
    }


def table() -> str:
    """The table as Markdown."""
    meaning, default, known = meanings(), shown(SimulationConfig()), flags()
    lines = ["| setting | flag | environment | default | what |", "|---|---|---|---|---|"]
    for name, setting in SETTINGS.items():
        flag = f"`{setting.flag}`" if setting.flag in known else ""
        variable = f"`{setting.variable}`" if setting.in_environment else ""
        value = f"`{default[name]}`" if default[name] and not setting.secret else ""
        lines.append(f"| `{name}` | {flag} | {variable} | {value} | {meaning[setting.field]} |")
    return "\n".join(lines)


def filled(page: str) -> str:
    """The page with the table between its markers."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
