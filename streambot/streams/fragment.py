"""Fragments: consecutive steps of one environment as bytes, a record of the `experience` stream.

A fragment is an envelope (`streams.envelope`) around an Arrow record batch without schema. The batch
has one row a step and a last row for the observation that the last step led to, whose other columns
are 0; columns are of fixed width, not compressed, without nulls.

Reading trusts nothing: the envelope, then its header, then Arrow's own full validation, and whether
what the header names is all that there is. Whether a fragment belongs to a training and observes what
its policy does is for the reader to ask (`FragmentHead.training`, `layout`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Meta

from streambot.domain.errors import DecodeError
from streambot.streams.envelope import Envelope

MAGIC = b"SBX1"
MAX_STEPS = 4_096
"""Most steps of a fragment."""
MAX_FRAGMENT_BYTES = 900_000
"""Brokers take records up to about 1 MiB unless told otherwise."""
_Name = Annotated[str, Meta(min_length=1, max_length=128)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Width = Annotated[int, Meta(ge=1, le=65_536)]


class FragmentHead(msgspec.Struct, frozen=True, kw_only=True):
    """Whose steps these are.

    Attributes:
        training: whose experience this is.
        actor: who acted. incarnation: which life of it: a restarted actor is a new one.
        sequence: number of the fragment among those of the actor's life, from 0.
        layout: digest of what observations and actions mean (`env.fields.layout_digest`).
        env: number of the environment in the actor.
        episode: number of the episode in the actor's life.
        t_started: steps of the episode before these.
        steps: T. features: F. actions: A. experts: E; 0: the policy has no gate.
        weights: sequence number of the weights that acted.
        terminated, truncated: how the episode ended with the last step; neither: it goes on.
        instrument: symbol.
        task: the segment that the episode plays, `SPY/1m/1200+390`: instrument, timeframe of its
            decisions, the bar at whose close it begins, counted among those of the instrument in
            the recording, and the steps that it lasts unless something ends it sooner. Episodes over
            the same segment of a recording have the same task. Empty: not said.
    """

    training: _Name
    actor: _Name
    incarnation: _Count
    sequence: _Count
    layout: str
    env: _Count
    episode: _Count
    t_started: _Count
    steps: Annotated[int, Meta(ge=1, le=MAX_STEPS)]
    features: _Width
    actions: _Width
    experts: Annotated[int, Meta(ge=0, le=1_024)] = 0
    weights: _Count
    terminated: bool = False
    truncated: bool = False
    instrument: str = ""
    task: str = ""

    @property
    def episode_id(self) -> str:
        """Names the episode among all of a training."""
        return f"{self.actor}.{self.incarnation}.{self.env}.{self.episode}"


_ENVELOPE = Envelope(MAGIC, FragmentHead, MAX_FRAGMENT_BYTES)


class Fragment(NamedTuple):
    """Consecutive steps.

    Attributes:
        head: whose.
        obs: float32 [T + 1, F]: those answered, and the one that the last step led to.
        mask: legal actions, uint8 [T + 1, A].
        action: joint indices, int32 [T].
        log_prob: of them when they were taken, float32 [T].
        log_probs: of all actions then, float32 [T, A].
        gate: weights of the experts, float32 [T, E].
        reward: float32 [T].
    """

    head: FragmentHead
    obs: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    action: npt.NDArray[np.int32]
    log_prob: npt.NDArray[np.float32]
    log_probs: npt.NDArray[np.float32]
    gate: npt.NDArray[np.float32]
    reward: npt.NDArray[np.float32]


class _Column(NamedTuple):
    """A column of the record batch.

    Attributes:
        name: of `Fragment`.
        type: of it in Arrow. kind: of its numbers.
        width: numbers of a row; 0: one, that is no list.
        reached: it also says something of the observation that the last step led to.
    """

    name: str
    type: pa.DataType
    kind: np.dtype[np.generic]
    width: int
    reached: bool


_REACHED = frozenset({"obs", "mask"})


@lru_cache(maxsize=64)
def _layout(features: int, actions: int, experts: int) -> tuple[pa.Schema, tuple[_Column, ...]]:
    """Schema and columns; of one training always the same ones."""

    def row(name: str, kind: pa.DataType, width: int) -> pa.Field:
        inner = pa.field("item", kind, nullable=False)
        return pa.field(name, pa.list_(inner, width), nullable=False)

    gate = [row("gate", pa.float32(), experts)] if experts else []
    schema = pa.schema([
        row("obs", pa.float32(), features),
        row("mask", pa.uint8(), actions),
        pa.field("action", pa.int32(), nullable=False),
        pa.field("log_prob", pa.float32(), nullable=False),
        row("log_probs", pa.float32(), actions),
        pa.field("reward", pa.float32(), nullable=False),
        *gate,
    ])  # fmt: skip
    columns = []
    for field in schema:
        listed = pa.types.is_fixed_size_list(field.type)
        kind = field.type.value_type if listed else field.type
        columns.append(
            _Column(
                field.name, field.type, np.dtype(kind.to_pandas_dtype()),
                field.type.list_size if listed else 0, field.name in _REACHED,
            )
        )  # fmt: skip
    return schema, tuple(columns)


def encode_fragment(fragment: Fragment) -> bytes:
    """A fragment as bytes.

    Raises:
        ValueError: columns that do not fit the head, or too many bytes for a record.
    """
    head = fragment.head
    schema, layout = _layout(head.features, head.actions, head.experts)
    columns = []
    for column in layout:
        values = getattr(fragment, column.name)
        rows = head.steps + column.reached
        if values.shape != ((rows, column.width) if column.width else (rows,)):
            raise ValueError(
                f"`{column.name}` of {values.shape} in a fragment of {head.steps} steps"
            )
        if column.reached:
            whole = np.ascontiguousarray(values, column.kind)
        else:
            whole = np.zeros((head.steps + 1, *values.shape[1:]), column.kind)
            whole[:rows] = values
        flat = pa.array(whole.reshape(-1))
        columns.append(
            pa.FixedSizeListArray.from_arrays(flat, type=column.type) if column.width else flat
        )
    body = pa.RecordBatch.from_arrays(columns, schema=schema).serialize()
    return _ENVELOPE.seal(head, memoryview(body))


def decode_fragment(record: bytes) -> Fragment:
    """The fragment that bytes hold; its arrays are views of them.

    Raises:
        DecodeError: they are no fragment, or damaged.
    """
    head, body = _ENVELOPE.open(record)
    schema, layout = _layout(head.features, head.actions, head.experts)
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(body), schema)
        batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as cause:
        raise DecodeError("no record batch of its columns", reason="arrow") from cause
    # Arrow leaves out columns that the schema does not name: the head may not be silent about any.
    if batch.num_rows != head.steps + 1 or pa.ipc.get_record_batch_size(batch) != len(body):
        raise DecodeError(
            f"{batch.num_rows} rows of {len(body):,} bytes for {head.steps} steps", reason="arrow"
        )
    columns = {}
    for column, array in zip(layout, batch.columns, strict=True):
        if array.null_count:
            raise DecodeError(f"`{column.name}` has nulls", reason="arrow")
        values = (array.values if column.width else array).to_numpy(zero_copy_only=True)
        if column.width:
            values = values[: batch.num_rows * column.width].reshape(-1, column.width)
        columns[column.name] = values if column.reached else values[: head.steps]
    columns.setdefault("gate", np.zeros((head.steps, 0), np.float32))
    if ((columns["action"] < 0) | (columns["action"] >= head.actions)).any():
        raise DecodeError("an action that there is not", reason="domain")
    return Fragment(head, **columns)


def peek_fragment(record: bytes) -> FragmentHead:
    """Whose fragment it is, once its crc holds.

    Raises:
        DecodeError: the bytes are no fragment, or damaged.
    """
    head: FragmentHead = _ENVELOPE.open(record)[0]
    return head
