"""The streams of a run as files: one line an event, appended, and cut back for a resumed run.

All partitions share a file per stream; lines of one partition stand in their order, so a snapshot
needs to know only how many of them it covers. Whole records are written, never a part of a line:
where the disk refuses in the middle, the file is cut back to its last whole record.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from streambot.processor.durable import disk_error, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

BUFFER_BYTES = 256 * 1024
_COPY_BYTES = 4 * 1024 * 1024


def file_of(folder: Path, stream: str) -> Path:
    """The file of a stream in the folder of its run."""
    return folder / f"{stream}.ndjson"


class StreamFiles:
    """Appends records to the files of a run.

    Args:
        folder: of the run.
        streams: which streams have a file.
        lines: lines that each partition has in each file already; None: new files.

    Raises:
        StreambotError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        streams: Sequence[str],
        partitions: int,
        *,
        lines: dict[str, list[int]] | None = None,
    ) -> None:
        self._lines = lines or {stream: [0] * partitions for stream in streams}
        self._paths = {stream: file_of(folder, stream) for stream in streams}
        self._buffers: dict[str, list[bytes]] = {stream: [] for stream in streams}
        self._buffered = 0
        self._files: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        for stream, path in self._paths.items():
            try:
                self._files[stream] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                self._sizes[stream] = os.fstat(self._files[stream]).st_size
            except OSError as cause:
                self._close_all()
                raise disk_error(path, cause) from cause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, stream: str, partition: int, data: bytes, lines: int) -> None:
        """Add a record: `lines` whole lines, each with its newline."""
        self._buffers[stream].append(data)
        self._lines[stream][partition] += lines
        self._buffered += len(data)
        if self._buffered >= BUFFER_BYTES:
            self.flush()

    def lines_of(self, partition: int) -> dict[str, int]:
        """Lines of one partition by stream, buffered ones included."""
        return {stream: by_partition[partition] for stream, by_partition in self._lines.items()}

    def flush(self) -> None:
        """Hand everything to the system.

        Raises:
            StreambotError: the disk refuses; the files hold whole records only.
        """
        for stream, buffer in self._buffers.items():
            if buffer:
                self._write(stream, b"".join(buffer))
                buffer.clear()
        self._buffered = 0

    def sync(self) -> None:
        """Wait until what was flushed is on the disk; another thread may do that.

        Raises:
            StreambotError: the disk refuses.
        """
        for stream, descriptor in list(self._files.items()):
            try:
                os.fsync(descriptor)
            except OSError as cause:
                raise disk_error(self._paths[stream], cause) from cause

    def close(self) -> None:
        """Flush and close. A second call does nothing.

        Raises:
            StreambotError: the last flush failed; the files are closed all the same.
        """
        if not self._files:
            return
        try:
            self.flush()
        finally:
            self._close_all()

    def _write(self, stream: str, data: bytes) -> None:
        descriptor = self._files[stream]
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as cause:
            with suppress(OSError):
                os.ftruncate(descriptor, self._sizes[stream])
            self._buffers[stream].clear()
            raise disk_error(self._paths[stream], cause) from cause
        self._sizes[stream] += len(data)

    def _close_all(self) -> None:
        for descriptor in self._files.values():
            with suppress(OSError):
                os.close(descriptor)
        self._files.clear()


def cut_back(
    folder: Path,
    stream: str,
    keep: Sequence[int],
    partition_of: Callable[[bytes], int],
) -> list[int]:
    """Cut a stream's file back to the first `keep[p]` lines of every partition p.

    What came later was written after the snapshot and will be written again. A last line without
    its newline is what a kill left behind, and goes too.

    Returns:
        Lines kept by partition.

    Raises:
        StreambotError: the disk refuses; the old file stays.
    """
    path = file_of(folder, stream)
    kept = [0] * len(keep)
    if not path.exists():
        return kept
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with path.open("rb") as source, partial.open("wb", buffering=_COPY_BYTES) as target:
            for line in source:
                if not line.endswith(b"\n"):
                    break
                partition = partition_of(line)
                if kept[partition] < keep[partition]:
                    kept[partition] += 1
                    target.write(line)
            target.flush()
            os.fsync(target.fileno())
        partial.replace(path)
        sync_folder(folder)
    except OSError as cause:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise disk_error(path, cause) from cause
    return kept
