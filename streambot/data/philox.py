"""Philox4x32-10 (Salmon et al. 2011): random words as a pure function of a key and a counter.

A path drawn with it depends on what it is drawn for, never on what was drawn before.
"""

from __future__ import annotations

import hashlib

from streambot.jit import njit

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF


@njit
def philox(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[int, int, int, int]:
    """Four random words of 32 bits for a counter of four words and a key of two."""
    for _ in range(10):
        # 32 x 32 bits do not fit in a signed 64-bit product: the high word by halves of the factor.
        p0_low = (c0 & 0xFFFF) * _M0
        p0_high = (c0 >> 16) * _M0 + (p0_low >> 16)
        p1_low = (c2 & 0xFFFF) * _M1
        p1_high = (c2 >> 16) * _M1 + (p1_low >> 16)
        high0, low0 = p0_high >> 16, ((p0_high & 0xFFFF) << 16) | (p0_low & 0xFFFF)
        high1, low1 = p1_high >> 16, ((p1_high & 0xFFFF) << 16) | (p1_low & 0xFFFF)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + _W0) & _MASK
        k1 = (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def stream_key(seed: int, symbol: str) -> int:
    """Key of 62 bits for the paths of `symbol` in a run with `seed`."""
    digest = hashlib.blake2b(f"{seed}\0{symbol}".encode(), digest_size=8, person=b"bar-path")
    return int.from_bytes(digest.digest(), "little") >> 2
