"""YAML with positions, for files that a stranger may have written.

Events of the YAML parser become a tree of `Node`s that know their line. Nothing of the file is
ever constructed as a Python object: tags are refused, scalars stay text until somebody asks for a
type (`domain.typed`), so that `0.05` is exact and `ON` is a symbol. Limits on size, depth, nodes
and the expansion of aliases bound time and memory whatever the file holds; duplicate keys,
merge keys and further documents are refused. Every error is a `ConfigError` at `file:line:key`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import yaml

from streambot.domain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 24
MAX_NODES: Final = 100_000
MAX_ALIASES: Final = 1_000
MAX_SCALAR: Final = 10_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
MAX_NUMBER = 40
"""Longest text of a number: more digits than any price, and no exponent that blows up."""


class Scalar(NamedTuple):
    """A scalar as it was written. `plain`: without quotes, so it may be a number, a bool or null."""

    text: str
    plain: bool

    @property
    def is_null(self) -> bool:
        """True for an empty value, `null` and `~`."""
        return self.plain and self.text in _NULLS


class Node(NamedTuple):
    """A value and its place. `line` counts from 1; the line of the key for a value of a mapping."""

    value: dict[str, Node] | list[Node] | Scalar
    line: int


Path_ = tuple[str | int, ...]


class Document(NamedTuple):
    """A parsed file: its name, as errors call it, and its root."""

    name: str
    root: Node

    def node(self, *path: str | int) -> Node | None:
        """The node at `path` (keys and list indices from the root); None where there is none."""
        node = self.root
        for part in path:
            value = node.value
            if isinstance(value, dict) and isinstance(part, str) and part in value:
                node = value[part]
                continue
            if isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
                node = value[part]
                continue
            return None
        return node

    def where(self, *path: str | int) -> str:
        """`file:line:key` of the longest part of `path` that exists, with the whole of `path`."""
        node = self.root
        for length in range(len(path), -1, -1):
            found = self.node(*path[:length])
            if found is not None:
                node = found
                break
        return _where(self.name, node.line, path)

    def error(self, message: str, *path: str | int, hint: str = "") -> ConfigError:
        """The error to raise about what stands at `path`."""
        return ConfigError(message, where=self.where(*path), hint=hint)

    def data(self) -> object:
        """Plain dictionaries, lists and scalars (null, bool, int, exact Decimal, str).

        For readers without a type to ask for; shared aliases stay shared.
        """
        return _plain(self, self.root, ())


def safe_load_positions(source: Path | str, *, name: str | None = None) -> Document:
    """Parse the file at a `Path`, or a text, into a `Document`.

    Args:
        source: a path, or the YAML text itself.
        name: what errors call it; default the path, or `<text>`.

    Raises:
        ConfigError: unreadable, no UTF-8, no YAML, over a limit, or a construct that is refused.
    """
    if isinstance(source, Path):
        return parse_yaml(read_bounded(source), name=name or str(source))
    return parse_yaml(source.encode("utf-8", "surrogatepass"), name=name or "<text>")


def read_bounded(path: Path) -> bytes:
    """The bytes of a regular file of at most `MAX_BYTES`.

    Raises:
        ConfigError: missing, no regular file, unreadable or too large.
    """
    try:
        if not path.exists():
            raise ConfigError("the file does not exist", where=str(path), hint="check the path")
        if not path.is_file():
            raise ConfigError("this is no regular file", where=str(path))
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"cannot be read: {reason}", where=str(path)) from error
    return raw


def parse_yaml(raw: bytes, *, name: str) -> Document:
    """Parse the bytes of a YAML file.

    Raises:
        ConfigError: as `safe_load_positions`.
    """
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"larger than {MAX_BYTES >> 10} KiB, which no configuration needs",
            where=f"{name}:1",
            hint="is this the right file?",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"byte {error.object[error.start]:#04x} is no UTF-8",
            where=f"{name}:{line}",
            hint="save the file as UTF-8",
        ) from error
    try:
        root = _Composer(name, yaml.parse(text, Loader=_LOADER)).document()
    except yaml.reader.ReaderError as error:
        line = raw.count(b"\n", 0, max(0, int(error.position))) + 1
        raise ConfigError(f"not YAML: {error.reason}", where=f"{name}:{line}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1 if mark is not None else 1}"
        problem = ": ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(
            f"not YAML: {problem}",
            where=where,
            hint="indent with spaces, put `: ` after a key, close every quote and bracket",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML: {error}", where=f"{name}:1") from error
    return Document(name, root)


def scalar_number(text: str) -> int | Decimal | None:
    """The exact number that a plain scalar spells; None where it spells none.

    Digits may be grouped with `_`. At most `MAX_NUMBER` characters and an exponent of two digits.
    """
    if len(text) > MAX_NUMBER:
        return None
    if _INT.match(text):
        return int(text.replace("_", ""))
    if _FLOAT.match(text):
        value = Decimal(text.replace("_", ""))
        exponent = value.as_tuple().exponent
        return value if isinstance(exponent, int) and abs(exponent) < 100 else None
    return None


def _where(name: str, line: int, path: Path_) -> str:
    key = ""
    for part in path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return f"{name}:{line}:{key}" if key else f"{name}:{line}"


def _plain(document: Document, node: Node, path: Path_) -> object:
    value = node.value
    if isinstance(value, dict):
        return {key: _plain(document, child, (*path, key)) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(document, child, (*path, i)) for i, child in enumerate(value)]
    if not value.plain:
        return value.text
    if value.is_null:
        return None
    if value.text in _BOOLS:
        return _BOOLS[value.text]
    number = scalar_number(value.text)
    if number is None and value.text.lstrip("+-").lower() in {".inf", ".nan"}:
        raise document.error(f"`{value.text}` is no number that can be used", *path)
    return value.text if number is None else number


def plain_bool(text: str) -> bool | None:
    """True or False for the words of YAML 1.2; None for any other text."""
    return _BOOLS.get(text)


class _Composer:
    """Builds the tree from parser events, counting as it goes."""

    def __init__(self, name: str, events: Iterator[yaml.Event]) -> None:
        self.name = name
        self.events = events
        self.nodes = 0
        self.aliases = 0
        self.anchors: dict[str | None, tuple[Node, int, int] | None] = {}

    def document(self) -> Node:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self.refuse(event, (), "a second document", hint="remove the `---`")
            elif isinstance(event, yaml.NodeEvent):
                root, _ = self.node(event, (), _line(event))
        if root is None:
            return Node(Scalar("", plain=True), 1)
        return root

    def refuse(self, event: yaml.Event, path: Path_, what: str, hint: str = "") -> ConfigError:
        return ConfigError(
            f"{what} is refused", where=_where(self.name, _line(event), path), hint=hint
        )

    def count(self, event: yaml.Event, path: Path_, weight: int) -> None:
        self.nodes += weight
        if self.nodes > MAX_NODES:
            raise self.refuse(event, path, f"more than {MAX_NODES:,} values, aliases expanded,")

    def node(self, event: yaml.NodeEvent, path: Path_, line: int) -> tuple[Node, int]:
        """The node that `event` starts, and its height (1 for a scalar)."""
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path, line)
        if len(path) >= MAX_DEPTH:
            raise self.refuse(event, path[:3], f"nesting deeper than {MAX_DEPTH}")
        tag: str | None = getattr(event, "tag", None)
        if tag is not None:
            hint = "write plain values, without `!`"
            raise self.refuse(event, path, f"the tag `{tag[:80]}`", hint=hint)
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # not complete: an alias to it now is a cycle
        before = self.nodes
        self.count(event, path, 1)
        height = 1
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_SCALAR:
                raise self.refuse(event, path, f"a value longer than {MAX_SCALAR:,} characters")
            node = Node(Scalar(event.value, plain=event.style in {None, ""}), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            node, height = self.sequence(path, line)
        else:
            node, height = self.mapping(path, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.nodes - before, height)
        return node, height

    def alias(self, event: yaml.AliasEvent, path: Path_, line: int) -> tuple[Node, int]:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise self.refuse(event, path, f"more than {MAX_ALIASES:,} aliases")
        shown = f"the alias `*{str(event.anchor)[:80]}`"
        if event.anchor not in self.anchors:
            raise self.refuse(event, path, f"{shown}, which nothing anchors,")
        target = self.anchors[event.anchor]
        if target is None:
            raise self.refuse(event, path, f"{shown} inside its own value")
        node, weight, height = target
        if len(path) + height > MAX_DEPTH:
            raise self.refuse(event, path[:3], f"nesting deeper than {MAX_DEPTH}")
        self.count(event, path, weight)
        return Node(node.value, line), height

    def sequence(self, path: Path_, line: int) -> tuple[Node, int]:
        items: list[Node] = []
        height = 0
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            assert isinstance(event, yaml.NodeEvent)  # noqa: S101  # the parser's grammar
            item, tall = self.node(event, (*path, len(items)), _line(event))
            items.append(item)
            height = max(height, tall)
        return Node(items, line), height + 1

    def mapping(self, path: Path_, line: int) -> tuple[Node, int]:
        entries: dict[str, Node] = {}
        height = 0
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.key(event, path, entries)
            value = next(self.events)
            assert isinstance(value, yaml.NodeEvent)  # noqa: S101  # the parser's grammar
            entries[key], tall = self.node(value, (*path, key), _line(event))
            height = max(height, tall)
        return Node(entries, line), height + 1

    def key(self, event: yaml.Event, path: Path_, entries: dict[str, Node]) -> str:
        if (
            not isinstance(event, yaml.ScalarEvent)
            or event.tag is not None
            or event.anchor is not None
        ):
            raise self.refuse(event, path, "a key that is no plain word")
        key: str = event.value
        self.count(event, path, 1)
        if not 0 < len(key) <= 200 or not key.isprintable():
            raise self.refuse(event, path, "an empty, overlong or unprintable key")
        if key == "<<" and not event.style:
            raise self.refuse(
                event, (*path, key), "a merge key", hint="repeat the settings instead"
            )
        if key in entries:
            raise ConfigError(
                f"the key `{key}` stands here for the second time, first on line {entries[key].line}",
                where=_where(self.name, _line(event), (*path, key)),
                hint="remove one of the two",
            )
        return key


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1
