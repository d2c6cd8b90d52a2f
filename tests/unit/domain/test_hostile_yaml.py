"""Two thousand hostile files: every one ends in a ConfigError at file and line, soon, and runs nothing.

Files are made by a seeded generator: what fails is reproducible by its number. Three readers are
attacked alike: the registry, the topics and the configuration.
"""

from __future__ import annotations

import functools
import resource
import time

import numpy as np
import pytest

from streambot.domain.bundled import bundled_path
from streambot.domain.config import resolve
from streambot.domain.errors import ConfigError
from streambot.domain.registry import load_registry, read_registry
from streambot.domain.topics import read_topics
from streambot.domain.yaml_positions import MAX_BYTES, parse_yaml

WORD = "hostile.yaml"
PER_KIND = 170
HONEST = b"".join(b"k%05d: 'a value like any other'\n" % i for i in range(30_000))
"""Nearly as large as a file may be."""
MOST_HONEST = 20.0
"""Times the CPU time that the honest file takes. What takes more than its share takes thousands."""
MOST_MEGABYTES = 100

REGISTRY = bundled_path("instruments.yaml").read_text()
TOPICS = bundled_path("topics.yaml").read_text()
CONFIG = """\
data: [a.csv, b.parquet]
instruments: [SPY, N*]
speed: 100x
from: 2020-12-07
to: 2020-12-10
gaps: max:30s
bar_path: ohlc
timeframe: 5m
capital: {default: 1000000, SPY: 50000}
lots: 1
max_quantity: 10
max_gap: 7d
drawdown_limit_bp: 2000
on_breach: halt
pnl_every: 15m
seed: 7
partitions: 4
namespace: streambot
run: mine
"""
TARGETS = {"registry": REGISTRY, "topics": TOPICS, "config": CONFIG}
READERS = {
    "registry": read_registry,
    "topics": read_topics,
    "config": lambda document: resolve({}, {}, document),
}


def lines_with_values(text: str) -> list[int]:
    rows = text.split("\n")
    return [
        i for i, row in enumerate(rows)
        if ":" in row and not row.lstrip().startswith("#") and row.split(":", 1)[1].split("#")[0].strip() not in {"", "&us_stock", "*us_stock"}
    ]  # fmt: skip


def pick(rng, options):
    return options[int(rng.integers(len(options)))]


def replace_value(rng, text: str, value: str) -> str:
    rows = text.split("\n")
    at = pick(rng, lines_with_values(text))
    rows[at] = rows[at].split(":", 1)[0] + ": " + value
    return "\n".join(rows)


def insert_line(rng, text: str, line: str) -> str:
    """A line beside an existing key, with its indentation."""
    rows = text.split("\n")
    at = pick(rng, [i for i in lines_with_values(text) if not rows[i].lstrip().startswith("-")])
    indent = rows[at][: len(rows[at]) - len(rows[at].lstrip())]
    rows.insert(at, indent + line)
    return "\n".join(rows)


def alias_bomb(rng, text: str, _marker) -> bytes:
    levels, width = int(rng.integers(7, 20)), int(rng.integers(8, 30))
    rows = ["x0: &x0 [" + ",".join(["lol"] * width) + "]"]
    for level in range(1, levels):
        item = f"*x{level - 1}"
        body = (
            "[" + ",".join([item] * width) + "]"
            if rng.random() < 0.5
            else "{" + ",".join(f"k{j}: {item}" for j in range(width)) + "}"
        )
        rows.append(f"x{level}: &x{level} {body}")
    return ("\n".join(rows) + "\n" + text).encode()


def self_alias(rng, text: str, _marker) -> bytes:
    return insert_line(
        rng,
        text,
        pick(rng, ["loop: &l [*l]", "loop: &l {a: *l}", "loop: &l [[[*l]]]", "loop: *nowhere"]),
    ).encode()


def python_tag(rng, text: str, marker) -> bytes:
    tag = pick(rng, [
        f"!!python/object/apply:os.system ['touch {marker}']",
        f"!!python/object/apply:subprocess.check_call [['touch', '{marker}']]",
        f"!!python/object/new:str {{args: [], state: {{}}, eval: \"open('{marker}', 'w')\"}}",
        f"!!python/object/apply:eval [\"open('{marker}', 'w')\"]",
        f"!!python/object/apply:builtins.open ['{marker}', 'w']",
        "!!python/name:os.system", "!!python/module:os", "!!python/tuple [1, 2]", "!!python/bytes aGk=",
        "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!local x", "!<tag:yaml.org,2002:int> 5", "!!timestamp 2020-01-01",
        "!!int 5", "!!float .nan", "!!null x", "!!bool yes",
    ])  # fmt: skip
    return replace_value(rng, text, tag).encode()


def wrong_type(rng, text: str, _marker) -> bytes:
    rows = text.split("\n")
    at = pick(rng, lines_with_values(text))
    key, value = (part.strip() for part in rows[at].split(":", 1))
    value = value.split("#")[0].strip()
    wrong = ["{a: {b: c}}", "[[[1]]]", "[{}, {}]", "{1: 2}"]
    rows[at] = rows[at].split(":", 1)[0] + ": " + pick(rng, [w for w in wrong if w != value])
    assert key
    return "\n".join(rows).encode()


def bad_number(rng, text: str, _marker) -> bytes:
    rows = text.split("\n")
    numeric = ("tick_size", "volume_step", "lot_size", "entry", "exit", "k:", "daily_atr", "partitions", "seed", "lots", "max_quantity",
               "drawdown_limit_bp", "speed", "retention", "max_gap", "pnl_every", "timeframe", "capital")  # fmt: skip
    candidates = [
        i for i in lines_with_values(text)
        if rows[i].lstrip().startswith(numeric) and "{" not in rows[i] and not rows[i].lstrip().startswith("- ")
    ]  # fmt: skip
    at = pick(rng, candidates)
    value = pick(
        rng,
        [
            "-1",
            ".nan",
            ".inf",
            "-.inf",
            "nan",
            "NaN",
            "1e400",
            "-0.0",
            "1e999999999",
            "9" * 400,
            "0x10",
            "1:30",
            "١",
            "--5",
            "1__",
            "+",
        ],
    )
    rows[at] = rows[at].split(":", 1)[0] + ": " + value
    return "\n".join(rows).encode()


def unknown_key(rng, text: str, _marker) -> bytes:
    key = pick(
        rng,
        [
            "lott_size",
            "symbol_",
            "__class__",
            "__init__",
            "eval",
            "tick-size",
            "TYPE",
            "speed_x",
            "ретеншн",
            "a" * 150,
            "<<",
            "?",
            "${HOME}",
        ],
    )
    return insert_line(rng, text, f"{key}: 1").encode()


def duplicate_key(rng, text: str, _marker) -> bytes:
    rows = text.split("\n")
    at = pick(rng, [i for i in lines_with_values(text) if not rows[i].lstrip().startswith("-")])
    rows.insert(at, rows[at])
    return "\n".join(rows).encode()


def bad_bytes(rng, text: str, _marker) -> bytes:
    raw = bytearray(text.encode())
    at = int(rng.integers(len(raw)))
    raw[at:at] = pick(
        rng,
        [
            b"\xff",
            b"\xc3\x28",
            b"\xed\xa0\x80",
            b"\x00",
            b"\x07",
            b"\x1b[2J",
            b"\xf5\x80\x80\x80",
            b"\x80",
            b"\x7f",
        ],
    )
    return bytes(raw)


def traversal(rng, target: str, text: str) -> bytes:
    path = pick(
        rng,
        [
            "../../etc/passwd",
            "/etc/passwd",
            "..",
            "a/b",
            "..\\..\\x",
            "%2e%2e/x",
            "x\\0y",
            "~/x",
            "a b",
            "-rf",
            "",
            "é",
        ],
    )
    if target == "registry":
        old, new = pick(rng, [("  SPY:", f'  "{path}":'), ("underlying: SPY", f'underlying: "{path}"'), ("timezone: America/New_York", f'timezone: "../{path}"'),
                              ("exchange: XNYS", f'exchange: "../{path}"')])  # fmt: skip
    elif target == "topics":
        old, new = pick(
            rng, [("  ticks:", f'  "{path}":'), ("writer: replay", f'writer: "{path}"')]
        )
    else:
        old, new = pick(
            rng,
            [
                ("run: mine", f'run: "{path}"'),
                ("namespace: streambot", f'namespace: "{path}"'),
                ("  SPY", f'  "{path}/.."'),
            ][:2],
        )
    assert old in text
    return text.replace(old, new, 1).encode()


def huge(rng, text: str, _marker) -> bytes:
    kind = int(rng.integers(8))
    n = MAX_BYTES - len(text.encode()) - 100
    return {
        0: lambda: text.encode() + b"#" * (MAX_BYTES + 1),
        1: lambda: b"[" * n,
        2: lambda: b"- " * (n // 2),
        3: lambda: b"{a: " * (n // 4),
        4: lambda: b"x: [" + b"1," * (n // 2) + b"]\n",
        5: lambda: b"x: '" + b"a" * n + b"'\n",
        6: lambda: b"".join(b"k%d: {}\n" % i for i in range(n // 12)),
        7: lambda: b"x: &a 1\n" + b"".join(b"k%d: *a\n" % i for i in range(20_000)),
    }[kind]()


def broken_syntax(rng, text: str, _marker) -> bytes:
    line = pick(
        rng,
        [
            "\tx: 1",
            "x: 'open",
            'x: "open',
            "x: [1, 2",
            "x: {a: 1",
            "a: b: c",
            "}",
            "]",
            "@x: 1",
            "`x: 1",
            "%YAML 9.9",
            "&",
            "*",
            "- x",
            "...\nx",
            "---\ny: 1",
            "x",
            "? [a]\n: b",
            '"\\ud800": 1',
            '"\\q": 1',
        ],
    )
    rows = text.split("\n")
    rows.insert(pick(rng, lines_with_values(text)), line)
    return "\n".join(rows).encode()


KINDS = {
    "alias bomb": alias_bomb, "alias to itself": self_alias, "python tag": python_tag, "wrong type": wrong_type,
    "bad number": bad_number, "unknown key": unknown_key, "duplicate key": duplicate_key, "bad bytes": bad_bytes,
    "path traversal": None, "broken syntax": broken_syntax,
}  # fmt: skip


@functools.cache
def honest_s() -> float:
    """CPU time of a large file that nothing is wrong with, the longest of three."""
    took = []
    for _ in range(3):
        start = time.thread_time()
        parse_yaml(HONEST, name=WORD)
        took.append(time.thread_time() - start)
    return max(took)


def attack(raw: bytes, reader) -> ConfigError | None:
    start = time.thread_time()
    try:
        reader(parse_yaml(raw, name=WORD))
    except ConfigError as error:
        return error
    finally:
        assert time.thread_time() - start < MOST_HONEST * honest_s()
    return None


def check(error: ConfigError | None, raw: bytes, seed: int) -> None:
    assert error is not None, f"file {seed} was accepted:\n{raw[:3000].decode(errors='replace')}"
    name, line, *_ = error.where.split(":")
    assert name == WORD
    assert 1 <= int(line) <= raw.count(b"\n") + 1
    assert len(str(error)) < 6000
    assert error.message


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_end_in_a_configuration_error_at_their_line(kind, tmp_path):
    marker = tmp_path / "executed"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(PER_KIND + 1):
        rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
        target = pick(rng, sorted(TARGETS))
        text = TARGETS[target]
        raw = (
            traversal(rng, target, text)
            if kind == "path traversal"
            else KINDS[kind](rng, text, marker)
        )
        check(attack(raw, READERS[target]), raw, seed)
    assert not marker.exists()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MEGABYTES


def test_huge_files_end_soon_and_small(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(24):
        rng = np.random.default_rng(seed)
        target = pick(rng, sorted(TARGETS))
        raw = huge(rng, TARGETS[target], None)
        check(attack(raw, READERS[target]), raw, seed)
    path = tmp_path / WORD
    with path.open("wb") as file:
        file.truncate(100 << 20)  # a hundred megabytes that are never read
    with pytest.raises(ConfigError, match="larger than"):
        load_registry(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MEGABYTES


def test_random_damage_is_read_or_refused_and_nothing_else():
    """Bytes swapped, cut, doubled: what is still a registry may pass, what is not is a ConfigError."""
    refused = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        target = pick(rng, sorted(TARGETS))
        raw = bytearray(TARGETS[target].encode())
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(len(raw)))
            size = int(rng.integers(1, 30))
            change = int(rng.integers(4))
            if change == 0:
                raw[at] = int(rng.integers(256))
            elif change == 1:
                del raw[at : at + size]
            elif change == 2:
                raw[at:at] = raw[at : at + size]
            else:
                raw[at:at] = bytes(rng.integers(32, 127, size).astype(np.uint8))
        error = attack(bytes(raw), READERS[target])
        if error is not None:
            refused += 1
            check(error, bytes(raw), seed)
    assert refused > 100


def test_the_unharmed_files_are_fine():
    for target, text in TARGETS.items():
        assert attack(text.encode(), READERS[target]) is None
