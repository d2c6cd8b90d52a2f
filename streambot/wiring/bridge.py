"""An event loop in a thread of its own, for code that may wait but cannot await.

A replay draws its windows in a thread, and what it draws may come from a broker. The loop lives
beside it as long as somebody reads; who reads asks for one thing at a time, so nothing piles up.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager
    from typing import Any

_T = TypeVar("_T")
_CLOSE_S = 10.0


class Bridge:
    """The loop, as a context manager. Not for use on the thread of another event loop.

    What was entered is left again, in reverse, when the bridge is left; then the thread ends.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        # Nobody should have to wait for it at the end of a process that was aborted.
        self._thread = threading.Thread(target=self._run, name="bridge", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait(self._leave())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_S)

    def wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do it, and wait for what comes of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def enter(self, manager: AbstractAsyncContextManager[_T]) -> _T:
        """Enter `manager` for as long as the bridge lasts."""
        return self.wait(self.entered(manager))

    async def entered(self, manager: AbstractAsyncContextManager[_T]) -> _T:
        """The same, for what runs on the loop itself."""
        return await self._stack.enter_async_context(manager)

    def items(self, source: AsyncIterator[_T]) -> Iterator[_T]:
        """The items of `source`, each asked for while the one before is worked on."""

        async def following() -> tuple[_T] | None:
            try:
                return (await anext(source),)
            except StopAsyncIteration:
                return None

        ahead = asyncio.run_coroutine_threadsafe(following(), self._loop)
        try:
            while (found := ahead.result()) is not None:
                ahead = asyncio.run_coroutine_threadsafe(following(), self._loop)
                yield found[0]
        finally:
            ahead.cancel()

    async def _leave(self) -> None:
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        await self._stack.aclose()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
