"""Lines of several threads stay whole; what has no newline comes with `flush`."""

from __future__ import annotations

import io
import threading

from streambot.cli.whole_lines import WholeLines


def test_threads_do_not_mix_their_lines() -> None:
    target = io.StringIO()
    stream = WholeLines(target)

    def talk(word: str) -> None:
        for _ in range(5_000):
            print(word, word, file=stream)

    threads = [threading.Thread(target=talk, args=(word,)) for word in ("one", "two", "six")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = target.getvalue().splitlines()
    assert sorted(set(lines)) == ["one one", "six six", "two two"]
    assert len(lines) == 15_000


def test_a_begun_line_waits_for_its_end_or_for_a_flush() -> None:
    target = io.StringIO()
    stream = WholeLines(target)
    stream.write("a\nb")
    assert target.getvalue() == "a\n"
    stream.flush()
    assert target.getvalue() == "a\nb"
