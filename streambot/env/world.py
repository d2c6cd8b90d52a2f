"""The environment's memory as compiled code sees it: one record of settings and addresses.

A step of one environment costs half a microsecond of rules; handing fifteen arrays to compiled code
costs more than that. So the arrays are owned in Python (`env.core`), their addresses stand in one
`WORLD` record, and the entry points take the address of that (`docs/adr/0018`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from streambot.env.fields import ACCOUNT_FIELDS
from streambot.env.reward import PAID, REWARD

ADDRESSES = (
    "ticks",
    "bars",
    "window",
    "slow",
    "closes",
    "session_opens",
    "session_closes",
    "expiries",
    "lots",
    "tick_starts",
    "bar_starts",
    "session_starts",
    "contract_starts",
    "first_start",
    "last_bar",
    "starts_before",
    "params",
    "blank",
    "slots",
    "envs",
    "quotes",
    "rings",
    "log",
    "events",
    "changes",
    "actions",
    "observations",
    "rewards",
    "terms",
    "masks",
    "terminated",
    "truncated",
    "equity",
    "reasons",
    "rejections",
    "money",
)
"""Arrays of a world; see `env.core` for their shapes."""

WORLD = np.dtype(
    [
        ("slots_n", "i8"),
        ("instruments_n", "i8"),
        ("ticks_n", "i8"),
        ("bars_n", "i8"),
        ("closes_n", "i8"),
        ("sessions_n", "i8"),
        ("contracts_n", "i8"),
        ("quantity", "i8"),
        ("look", "i8"),
        ("window_n", "i8"),
        ("slow_n", "i8"),
        ("observation_n", "i8"),
        ("warmup", "i8"),
        ("episode_bars", "i8"),
        ("max_gap", "i8"),
        ("drawdown_bp", "i8"),
        ("autoreset", "i8"),
        ("outside", "i8"),
        ("starts_n", "i8"),
        ("reward", REWARD),
        *((name, "i8") for name in ADDRESSES),
    ],
    align=True,
)
"""Settings, sizes and addresses. `look`: bars of an observation's window; `starts_n`: how many
episodes there are to draw from; `episode_bars` 0: to the end of the data; `outside` 1: the engine runs
elsewhere, slots and log are what it says."""

ENV = np.dtype(
    [
        ("instrument", "i8"),
        ("bar", "i8"),
        ("first_bar", "i8"),
        ("last_bar", "i8"),
        ("steps", "i8"),
        ("equity", "i8"),
        ("unrealized", "i8"),
        ("distance", "f8"),
        ("side", "i8"),
        ("stop", "i8"),
        ("entry_bar", "i8"),
        ("paid", PAID),
        ("ended", "i8"),
        ("cause", "i8"),
        ("events_n", "i8"),
        ("rejected", "i8"),
        ("key", "i8"),
        ("actor", "i8"),
        ("slot", "i8"),
        ("episode", "i8"),
        ("to_reset", "i8"),
        ("asked_instrument", "i8"),
        ("asked_bar", "i8"),
        ("asked_bars", "i8"),
    ],
    align=True,
)
"""One environment besides its slot of the engine. `bar` counts the instrument's bars; `rejected` is
the reason's code of the step's last rejection, -1: none; `asked_…` are -1 unless a reset named them."""

CAUSES = ("", "drawdown", "ruin", "length", "end_of_data", "gap")
"""Why an episode ended; the first stands for "it has not"."""
CAUSE_NONE, CAUSE_DRAWDOWN, CAUSE_RUIN, CAUSE_LENGTH, CAUSE_DATA, CAUSE_GAP = range(6)
FOUND_END, FOUND_REJECTION, FOUND_NO_ACTION = 1, 2, -1
"""What a step has met somewhere, as bits; or that an action is none, and nothing was done."""
RESET_BY_CALL, RESET_AT_NEXT_STEP, RESET_IN_STEP = 0, 1, 2
"""When an episode that ended is followed by a new one (`WORLD.autoreset`)."""
ACCOUNT_N = len(ACCOUNT_FIELDS)


def _pointer(_typing: Any, address: Any) -> Any:
    """The pointer that stands at an int64 address."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), codegen


pointer: Any = intrinsic(_pointer)


def _copy(_typing: Any, to: Any, at: Any, source: Any, first: Any, count: Any) -> Any:
    """Copy `count` float32 from `source[first:]` to `to[at:]`.

    Element by element, each index would be asked whether it is negative, and no processor's wide
    moves be used.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to_type, _, source_type, _, _ = signature.args
        target = context.make_array(to_type)(context, builder, arguments[0]).data
        origin = context.make_array(source_type)(context, builder, arguments[2]).data
        size = builder.mul(arguments[4], ir.Constant(ir.IntType(64), 4))
        cgutils.raw_memcpy(  # type: ignore[no-untyped-call]
            builder,
            builder.gep(target, [arguments[1]]),
            builder.gep(origin, [arguments[3]]),
            size,
            1,
        )
        return context.get_dummy_value()

    return types.none(to, at, source, first, count), codegen


def _prefetch(_typing: Any, array: Any, at: Any) -> Any:
    """Ask for the memory of `array[at]` before it is used; `at` need not lie in the array."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        where = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        builder.call(function, [where, word(0), word(3), word(1)])  # to read, keep it, data
        return context.get_dummy_value()

    return types.none(array, at), codegen


copy_floats: Any = intrinsic(_copy)
prefetch: Any = intrinsic(_prefetch)
