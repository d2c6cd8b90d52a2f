"""Quantiles of wall times in constant memory: buckets that grow by 2.2 % (32 to an octave)."""

from __future__ import annotations

import math

from streambot.report.summary import Latency

_PER_OCTAVE = 32
_OCTAVES = 43  # 1 us to 100 days
_UNIT_NS = 1_000


class WallTimes:
    """Counts durations; remembers none of them."""

    def __init__(self) -> None:
        self._counts = [0] * (_PER_OCTAVE * _OCTAVES)
        self._total = 0
        self._largest = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration; a negative one counts as 0."""
        bucket = 0
        if duration_ns > _UNIT_NS:
            bucket = min(
                int(math.log2(duration_ns / _UNIT_NS) * _PER_OCTAVE), len(self._counts) - 1
            )
        self._counts[bucket] += 1
        self._total += 1
        self._largest = max(self._largest, duration_ns)

    def quantile_ms(self, share: float) -> float | None:
        """Milliseconds below which `share` of the durations lie, to 2.2 %; None: there were none."""
        if not self._total:
            return None
        rank = share * self._total
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank and count:
                edge = _UNIT_NS * 2 ** ((bucket + 1) / _PER_OCTAVE)
                return round(min(edge, max(self._largest, 0)) / 1e6, 3)
        return round(self._largest / 1e6, 3)

    def latency(self) -> Latency:
        """p50, p99 and the largest."""
        return Latency(
            p50=self.quantile_ms(0.5),
            p99=self.quantile_ms(0.99),
            max=round(max(self._largest, 0) / 1e6, 3) if self._total else None,
        )
