"""What transactions promise, on every log that has them: together or not at all, and one owner."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streambot.domain.errors import BrokerError, FencedError
from streambot.streams.ports import StreamSpec, TopicPartition, Transactions
from streambot.streams.reading import read_back, read_last, read_to_end


async def made(log, name, *streams: str, partitions: int = 2) -> list[str]:
    names = [name(stream) for stream in streams]
    await log.create([StreamSpec(name=n, partitions=partitions) for n in names])
    return names


async def visible(log, stream: str, partition: int = 0) -> list[bytes]:
    return [
        record.value
        async for batch in read_to_end(log, stream, {partition: "beginning"})
        for record in batch
    ]


async def settles(question, answer) -> None:
    """A broker says that a transaction is committed before it has marked it in every partition."""
    limit = asyncio.get_running_loop().time() + 10
    while (found := await question()) != answer:
        assert asyncio.get_running_loop().time() < limit, found


async def begun(log, owner: str) -> Transactions:
    """Transactions of that name, one of them open; None of a log without: said, not suffered."""
    transactions = await log.transactions(owner)
    assert isinstance(transactions, Transactions)
    await transactions.begin()
    return transactions


def without_transactions(request) -> bool:
    return request.node.get_closest_marker("integration") is not None


async def test_a_log_without_transactions_says_so(log, name, request):
    if without_transactions(request):
        with pytest.raises(BrokerError, match="no transactions"):
            await log.transactions(name("owner"))
    else:
        await (await log.transactions(name("owner"))).close()


async def test_records_become_visible_together(log, name, request):
    if without_transactions(request):
        return
    a, b = await made(log, name, "a", "b")
    transactions = await begun(log, name("owner"))
    await transactions.append(a, 0, b"1", timestamp_ms=1)
    await transactions.append(b, 1, b"2", timestamp_ms=1, key=b"k", headers=(("h", b"x"),))
    await transactions.flush()
    assert await visible(log, a) == await visible(log, b, 1) == []
    await transactions.commit()
    await settles(lambda: visible(log, a), [b"1"])
    await settles(lambda: visible(log, b, 1), [b"2"])
    (record,) = await read_back(log, b, 1, 1)
    assert (record.key, record.value, record.headers) == (b"k", b"2", (("h", b"x"),))
    await transactions.close()


async def test_what_was_not_committed_is_never_seen_and_holds_nobody_up(log, name, request):
    if without_transactions(request):
        return
    (a,) = await made(log, name, "a")
    transactions = await begun(log, name("owner"))
    await transactions.append(a, 0, b"gone", timestamp_ms=1)
    await transactions.flush()
    await transactions.close()
    again = await begun(log, name("owner"))
    await again.append(a, 0, b"there", timestamp_ms=2)
    await again.commit()
    await settles(lambda: visible(log, a), [b"there"])
    await again.close()


async def test_who_opens_a_name_fences_the_one_before(log, name, request):
    if without_transactions(request):
        return
    (a,) = await made(log, name, "a")
    zombie = await begun(log, name("owner"))
    await zombie.append(a, 0, b"zombie", timestamp_ms=1)
    await zombie.flush()
    owner = await begun(log, name("owner"))
    await owner.append(a, 0, b"owner", timestamp_ms=1)

    async def goes_on() -> None:
        await zombie.append(a, 0, b"zombie again", timestamp_ms=2)
        await zombie.flush()
        await zombie.commit()

    with pytest.raises(FencedError):
        await goes_on()
    with pytest.raises(FencedError):
        await zombie.begin()
    await owner.commit()
    await settles(lambda: visible(log, a), [b"owner"])
    await zombie.close()
    await owner.close()


async def test_offsets_move_with_the_transaction(log, name, request):
    if without_transactions(request):
        return
    (a,) = await made(log, name, "a")
    places = [TopicPartition(a, 0), TopicPartition(a, 1)]
    transactions = await begun(log, name("owner"))
    await transactions.offsets(name("group"), {places[0]: 7})
    assert await log.committed(name("group"), places) == {}
    await transactions.commit()
    await settles(lambda: log.committed(name("group"), places), {places[0]: 7})
    await transactions.begin()
    await transactions.offsets(name("group"), {places[0]: 9})
    await transactions.close()
    assert await log.committed(name("group"), places) == {places[0]: 7}


async def test_a_transaction_is_begun_once_and_first(log, name, request):
    if without_transactions(request):
        return
    (a,) = await made(log, name, "a")
    transactions = await log.transactions(name("owner"))
    with pytest.raises(BrokerError, match="no transaction"):
        await transactions.append(a, 0, b"1", timestamp_ms=1)
    await transactions.begin()
    with pytest.raises(BrokerError, match="open already"):
        await transactions.begin()
    await transactions.close()
    await transactions.close()
    with pytest.raises(BrokerError, match="closed"):
        await transactions.begin()


async def test_the_last_records_are_found_behind_marks_of_transactions(log, name, request):
    (a,) = await made(log, name, "a")
    assert await read_last(log, a, 0) is None
    if without_transactions(request):
        return
    for number in range(3):
        lost = await begun(log, name("owner"))
        for _ in range(20):
            await lost.append(a, 0, b"lost", timestamp_ms=number)
        with contextlib.suppress(BrokerError):
            await lost.flush()
        await lost.close()
        kept = await begun(log, name("owner"))
        await kept.append(a, 0, b"kept %d" % number, timestamp_ms=number)
        await kept.commit()
        await kept.close()
    lost = await begun(log, name("owner"))
    for _ in range(50):
        await lost.append(a, 0, b"lost", timestamp_ms=9)
    await lost.flush()
    await lost.close()
    last = await read_last(log, a, 0)
    assert last is not None
    assert last.value == b"kept 2"
    assert [r.value for r in await read_back(log, a, 0, 3)][-3:] == [
        b"kept 0",
        b"kept 1",
        b"kept 2",
    ]
    assert await visible(log, a) == [b"kept 0", b"kept 1", b"kept 2"]
    assert await visible(log, a, 1) == []
