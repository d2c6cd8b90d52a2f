"""From a parsed YAML tree to typed, frozen settings, with an error that names the line and the key.

The wanted type decides what a scalar means (`ON` is a symbol where text is wanted, `0.05` an exact
decimal where a decimal is wanted), so nothing is guessed from its looks. Of a union of structs the
tag field names the member; without it, the member that knows all the keys that are there.
"""

# ruff: noqa: ANN401 -- what a type description yields is as typed as the description is
from __future__ import annotations

import datetime as dt
import functools
import operator
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec import inspect

from streambot.domain.suggest import did_you_mean
from streambot.domain.yaml_positions import Document, Node, Path_, Scalar, plain_bool, scalar_number

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

T = TypeVar("T")

_MISSING_HINT = "add it"
_FIELD_IN_MESSAGE = re.compile(r"`([a-z_]+)(?:\.([a-z_]+))?`")


def build(document: Document, kind: type[T], *path: str | int, **given: object) -> T:
    """The value of type `kind` that stands at `path`.

    Args:
        document: the file.
        kind: a msgspec Struct, or anything that its fields may be.
        path: where the value stands.
        given: fields of the Struct that do not come from the file (its symbol, say).

    Raises:
        ConfigError: unknown or missing key, wrong type, value out of bounds, at `file:line:key`.
    """
    node = document.node(*path)
    if node is None:
        raise document.error("nothing is here", *path, hint=_MISSING_HINT)
    info = _type_info(cast("Hashable", kind))
    if isinstance(info, inspect.StructType):
        return cast("T", _struct(document, node, info, path, given))
    return cast("T", _value(document, node, info, path))


@functools.cache
def _type_info(kind: Hashable) -> inspect.Type:
    return inspect.type_info(kind)


def _value(document: Document, node: Node, info: inspect.Type, path: Path_) -> Any:
    if isinstance(info, inspect.Metadata):
        return _value(document, node, info.type, path)
    if isinstance(info, inspect.UnionType):
        return _union(document, node, info, path)
    if isinstance(info, inspect.StructType):
        return _struct(document, node, info, path, {})
    if isinstance(info, inspect.VarTupleType):
        items = _items(document, node, info, path)
        return tuple(_value(document, x, info.item_type, (*path, i)) for i, x in enumerate(items))
    if isinstance(info, inspect.DictType):
        entries = _entries(document, node, info, path)
        return {k: _value(document, x, info.value_type, (*path, k)) for k, x in entries.items()}
    if not isinstance(node.value, Scalar):
        raise _unexpected(document, node, info, path)
    read = _SCALARS.get(type(info))
    if read is None:
        raise TypeError(f"no reader for {info}")
    return read(document, node.value, info, path)


def _struct(
    document: Document,
    node: Node,
    info: inspect.StructType,
    path: Path_,
    given: dict[str, object],
) -> Any:
    entries = dict(_entries(document, node, info, path))
    tag = entries.pop(info.tag_field, None) if info.tag_field else None
    if tag is not None and (not isinstance(tag.value, Scalar) or tag.value.text != info.tag):
        raise document.error(f"expected `{info.tag}`", *path, str(info.tag_field))
    fields = {field.encode_name: field for field in info.fields}
    for key in entries:
        if key not in fields or key in given:
            known = [name for name in fields if name not in given]
            raise document.error(f"unknown key `{key}`", *path, key, hint=did_you_mean(key, known))
    values: dict[str, object] = {
        fields[key].name: _field(document, child, fields[key], (*path, key))
        for key, child in entries.items()
    }
    for name, value in given.items():
        if isinstance(value, str):
            _value(document, Node(Scalar(value, plain=False), node.line), fields[name].type, path)
    for name, field in fields.items():
        if field.required and name not in entries and name not in given:
            raise document.error(
                f"`{name}` is missing", *path, hint=_missing_hint(name, field.type)
            )
    try:
        return info.cls(**values, **given)
    except ValueError as error:
        found = _FIELD_IN_MESSAGE.search(str(error))
        inner = [part for part in found.groups() if part] if found else []
        at = (*path, *inner) if document.node(*path, *inner) is not None else (*path, *inner[:1])
        raise document.error(str(error), *(at if document.node(*at) else path)) from error


def _field(document: Document, node: Node, field: inspect.Field, path: Path_) -> Any:
    info = field.type
    if isinstance(info, inspect.UnionType):
        # Where keys leave the member of a union open, it is the default's.
        usual = type(field.default)
        types = sorted(
            info.types, key=lambda member: getattr(_bare(member), "cls", None) is not usual
        )
        info = inspect.UnionType(tuple(types))
    return _value(document, node, info, path)


def _missing_hint(name: str, info: inspect.Type) -> str:
    if isinstance(info, inspect.EnumType):
        return f"add `{name}: {next(iter(info.cls)).value}`"
    return f"add `{name}: {_wanted(info)}`"


def _union(document: Document, node: Node, info: inspect.UnionType, path: Path_) -> Any:
    scalar = node.value if isinstance(node.value, Scalar) else None
    members = list(info.types)
    if any(isinstance(m, inspect.NoneType) for m in members):
        if scalar is not None and scalar.is_null:
            return None
        members = [m for m in members if not isinstance(m, inspect.NoneType)]
    structs = [m for m in members if isinstance(_bare(m), inspect.StructType)]
    if isinstance(node.value, dict) and structs:
        return _value(document, node, _member(document, node.value, structs, path), path)
    fitting = [m for m in members if _fits(_bare(m), node)]
    if not fitting:
        wanted = " or ".join(_wanted(m) for m in members)
        raise document.error(f"expected {wanted}, got {_got(node)}", *path)
    return _value(document, node, fitting[0], path)


def _member(
    document: Document, entries: dict[str, Node], members: Sequence[inspect.Type], path: Path_
) -> inspect.StructType:
    structs = [m for m in map(_bare, members) if isinstance(m, inspect.StructType)]
    tag_field = structs[0].tag_field
    if tag_field and tag_field in entries:
        tag = entries[tag_field].value
        text = tag.text if isinstance(tag, Scalar) else ""
        for struct in structs:
            if struct.tag == text:
                return struct
        hint = did_you_mean(text, [str(struct.tag) for struct in structs])
        raise document.error(f"unknown `{tag_field}`: `{text[:80]}`", *path, tag_field, hint=hint)
    keys = set(entries)
    for struct in structs:
        if keys <= {field.encode_name for field in struct.fields} and keys:
            return struct
    known = list(dict.fromkeys(f.encode_name for s in structs for f in s.fields))
    for key in entries:
        if key not in known:
            raise document.error(f"unknown key `{key}`", *path, key, hint=did_you_mean(key, known))
    listed = ", ".join(f"`{key}`" for key in known)
    raise document.error(f"give exactly one kind: {listed} do not go together", *path)


def _bare(info: inspect.Type) -> inspect.Type:
    return _bare(info.type) if isinstance(info, inspect.Metadata) else info


def _fits(info: inspect.Type, node: Node) -> bool:
    if isinstance(node.value, list):
        return isinstance(info, inspect.VarTupleType)
    if isinstance(node.value, dict):
        return isinstance(info, (inspect.DictType, inspect.StructType))
    if isinstance(info, inspect.IntType):
        return node.value.plain and isinstance(scalar_number(node.value.text), int)
    if isinstance(info, inspect.EnumType):
        return any(member.value == node.value.text for member in info.cls)
    return type(info) in _SCALARS


def _items(document: Document, node: Node, info: inspect.Type, path: Path_) -> list[Node]:
    if isinstance(node.value, list):
        return node.value
    raise _unexpected(document, node, info, path)


def _entries(document: Document, node: Node, info: inspect.Type, path: Path_) -> dict[str, Node]:
    if isinstance(node.value, dict):
        return node.value
    if isinstance(node.value, Scalar) and node.value.is_null:
        return {}
    raise _unexpected(document, node, info, path)


def _unexpected(document: Document, node: Node, info: inspect.Type, path: Path_) -> Exception:
    return document.error(f"expected {_wanted(info)}, got {_got(node)}", *path)


_WORDS: dict[type[inspect.Type], str] = {
    inspect.StructType: "keys and values",
    inspect.DictType: "keys and values",
    inspect.VarTupleType: "a list",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.DecimalType: "a number",
    inspect.BoolType: "true or false",
    inspect.DateType: "a date (2026-01-31)",
    inspect.StrType: "text",
    inspect.NoneType: "null",
}


def _wanted(info: inspect.Type) -> str:
    bare = _bare(info)
    if isinstance(bare, inspect.EnumType):
        return " or ".join(str(member.value) for member in bare.cls)
    if isinstance(bare, inspect.UnionType):
        return " or ".join(_wanted(member) for member in bare.types)
    return _WORDS[type(bare)]


def _got(node: Node) -> str:
    if isinstance(node.value, list):
        return "a list"
    if isinstance(node.value, dict):
        return "keys and values"
    if node.value.is_null:
        return "nothing"
    text = node.value.text
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"`{shown}`" if node.value.plain and shown.isprintable() else f"the text {shown!r}"


def _bool(document: Document, scalar: Scalar, info: inspect.Type, path: Path_) -> bool:
    value = plain_bool(scalar.text) if scalar.plain else None
    if value is None:
        raise _unexpected(document, Node(scalar, 0), info, path)
    return value


def _int(document: Document, scalar: Scalar, info: Any, path: Path_) -> int:
    number = scalar_number(scalar.text) if scalar.plain else None
    if not isinstance(number, int):
        raise _unexpected(document, Node(scalar, 0), info, path)
    _bounds(document, number, info, path)
    return number


def _float(document: Document, scalar: Scalar, info: Any, path: Path_) -> float:
    number = scalar_number(scalar.text) if scalar.plain else None
    if number is None:
        raise _unexpected(document, Node(scalar, 0), info, path)
    _bounds(document, number, info, path)
    return float(number)


def _decimal(document: Document, scalar: Scalar, info: inspect.Type, path: Path_) -> Decimal:
    number = scalar_number(scalar.text)
    if number is None:
        raise _unexpected(document, Node(scalar, 0), info, path)
    return Decimal(number)


def _bounds(document: Document, number: int | Decimal, info: Any, path: Path_) -> None:
    limits = (
        ("at least", info.ge, operator.ge),
        ("more than", info.gt, operator.gt),
        ("at most", info.le, operator.le),
        ("less than", info.lt, operator.lt),
    )
    for words, limit, holds in limits:
        if limit is not None and not holds(number, limit):
            raise document.error(f"must be {words} {limit:,}, not {number}", *path)


def _str(document: Document, scalar: Scalar, info: Any, path: Path_) -> str:
    text = scalar.text
    if scalar.is_null:
        raise _unexpected(document, Node(scalar, 0), info, path)
    if not text.isprintable():
        raise document.error("the text holds a character that cannot be printed", *path)
    too_long = info.max_length is not None and len(text) > info.max_length
    too_short = info.min_length is not None and len(text) < info.min_length
    if too_long or too_short or (info.pattern and not re.search(info.pattern, text)):
        wanted = f"; it must match {info.pattern}" if info.pattern else ""
        raise document.error(f"`{text[:60]}` is not allowed here{wanted}", *path)
    return text


def _date(document: Document, scalar: Scalar, info: inspect.Type, path: Path_) -> dt.date:
    try:
        return dt.date.fromisoformat(scalar.text)
    except ValueError:
        raise _unexpected(document, Node(scalar, 0), info, path) from None


def _enum(document: Document, scalar: Scalar, info: Any, path: Path_) -> object:
    try:
        return info.cls(scalar.text)
    except ValueError:
        hint = did_you_mean(scalar.text, [str(member.value) for member in info.cls])
        raise document.error(f"unknown value {_got(Node(scalar, 0))}", *path, hint=hint) from None


_SCALARS: dict[type[inspect.Type], Callable[[Document, Scalar, Any, Path_], object]] = {
    inspect.BoolType: _bool,
    inspect.IntType: _int,
    inspect.FloatType: _float,
    inspect.DecimalType: _decimal,
    inspect.StrType: _str,
    inspect.DateType: _date,
    inspect.EnumType: _enum,
}
