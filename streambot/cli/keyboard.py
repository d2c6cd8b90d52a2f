"""Keys of a paced run on a terminal: space pauses, `.` steps, `+` and `-` change the speed.

The terminal is put into cbreak mode: keys come at once and are not shown; Ctrl-C and Ctrl-Z go on
meaning what they do. Its old mode comes back however the run ends (return, exception, signal,
end of the process), and while the process is stopped or in the background. Nothing happens where
stdin is no terminal.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import secrets
import signal
import sys
import termios
import tty
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from streambot.domain.errors import UsageError
from streambot.domain.replay_settings import Speed, parse_speed
from streambot.streams.control import Acknowledgement, Command, Pause, Resume, SetSpeed, Step

if TYPE_CHECKING:
    from collections.abc import Callable

HINT = "space pauses, ? shows the keys"
IDLE = "no replay goes at the moment: the key did nothing"
HELP = "space: pause, go on   . or →: one barrier   + -: twice, half the speed   ?: this   Ctrl-C: stop"
_KEYS = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.)?|.", re.DOTALL)
_STEP = frozenset({b".", b">", b"\x1b[C", b"\x1bOC"})
_READ_BYTES = 256
_FATAL = (signal.SIGHUP, signal.SIGQUIT)


class Controls(Protocol):
    """Who takes the commands: `wiring.ReplayControls`."""

    @property
    def speed(self) -> Speed | None:
        """The speed asked for at the moment; None while nothing goes."""

    @property
    def paused(self) -> bool:
        """A replay goes, and is paused."""

    def apply(self, command: Command) -> asyncio.Future[Acknowledgement] | None:
        """Give a command; None while nothing goes."""


class Keyboard:
    """Turns keys into commands, from `start` to `stop`; both may be called more than once.

    Args:
        controls: who takes the commands.
        say: tells the person something.
        told: tells them what became of a command that was done; None: the screen shows it.
    """

    def __init__(
        self,
        controls: Controls,
        say: Callable[[str], None],
        *,
        told: Callable[[Acknowledgement], None] | None = None,
    ) -> None:
        self._controls = controls
        self._say = say
        self._told = told
        self._sender = f"keyboard-{secrets.token_hex(4)}"
        self._count = 0
        self._pausing: tuple[bool, asyncio.Future[Acknowledgement]] | None = None
        self._speeding: tuple[Speed, asyncio.Future[Acknowledgement]] | None = None
        self._terminal: _Terminal | None = None

    def start(self) -> bool:
        """Listen to the keys; False where nobody can press any."""
        if self._terminal is None and sys.stdin is not None and sys.stdin.isatty():
            self._terminal = _Terminal(sys.stdin.fileno(), self.press)
            self._terminal.open()
        return self._terminal is not None

    def stop(self) -> None:
        """Give the terminal back."""
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.close()

    def press(self, pressed: bytes) -> None:
        """Do what the keys mean; others mean nothing."""
        for key in _KEYS.findall(pressed):
            if key == b" ":
                self._pause_or_resume()
            elif key in _STEP:
                self._give(Step(**self._next()))
            elif key in {b"+", b"="}:
                self._change_speed(Fraction(2))
            elif key in {b"-", b"_"}:
                self._change_speed(Fraction(1, 2))
            elif key == b"?":
                self._say(HELP)

    def _pause_or_resume(self) -> None:
        pausing = not self._controls.paused
        if self._pausing is not None and not self._pausing[1].done():
            pausing = not self._pausing[0]  # the key before waits for its barrier still
        answer = self._give(Pause(**self._next()) if pausing else Resume(**self._next()))
        if answer is not None:
            self._pausing = pausing, answer

    def _change_speed(self, factor: Fraction) -> None:
        speed = self._controls.speed
        if self._speeding is not None and not self._speeding[1].done():
            speed = self._speeding[0]  # the key before waits for its barrier still
        if speed is None:
            self._say(IDLE)
            return
        if speed.is_max:
            if factor < 1:
                self._say("there is no half of max: streambot replay speed 100x")
            return
        ratio = Fraction(speed.numerator, speed.denominator) * factor
        text = str(Speed(ratio.numerator, ratio.denominator))
        try:
            parse_speed(text)
        except UsageError:
            self._say(f"{speed} is as {'fast' if factor > 1 else 'slow'} as the keys go")
            return
        answer = self._give(SetSpeed(**self._next(), speed=text))
        if answer is not None:
            self._speeding = parse_speed(text), answer

    def _next(self) -> dict[str, Any]:
        self._count += 1
        return {
            "id": f"{self._sender}-{self._count}",
            "sender": self._sender,
            "number": self._count,
        }

    def _give(self, command: Command) -> asyncio.Future[Acknowledgement] | None:
        answer = self._controls.apply(command)
        if answer is None:
            self._say(IDLE)
        else:
            answer.add_done_callback(self._answered)
        return answer

    def _answered(self, answer: asyncio.Future[Acknowledgement]) -> None:
        if answer.cancelled():
            return
        said = answer.result()
        if not said.applied:
            self._say(said.reason)
        elif self._told is not None:
            self._told(said)


class _Terminal:
    """A terminal in cbreak mode, with its way back."""

    def __init__(self, descriptor: int, press: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._press = press
        self._loop = asyncio.get_running_loop()
        self._before: list[Any] | None = None
        self._signals: list[int] = []

    def open(self) -> None:
        atexit.register(self.close)
        self._on(signal.SIGTSTP, self._suspend)
        self._on(signal.SIGCONT, self._enter)
        for number in _FATAL:
            self._on(number, self._die, number)
        self._enter()

    def close(self) -> None:
        atexit.unregister(self.close)
        self._leave()
        signals, self._signals = self._signals, []
        for number in signals:
            with suppress(ValueError, RuntimeError):
                self._loop.remove_signal_handler(number)

    def _on(self, number: int, react: Callable[..., None], *arguments: object) -> None:
        # A signal that is ignored (nohup) stays so; outside the main thread there are none.
        if signal.getsignal(number) is signal.SIG_IGN:
            return
        with suppress(ValueError, RuntimeError):
            self._loop.add_signal_handler(number, react, *arguments)
            self._signals.append(number)

    @property
    def _foreground(self) -> bool:
        """The terminal listens to this process: who is in the background is stopped for touching it."""
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return False

    def _enter(self) -> None:
        if self._before is not None or not self._foreground:
            return
        with suppress(termios.error):
            before = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor, termios.TCSANOW)
            self._before = before
            self._loop.add_reader(self._descriptor, self._readable)

    def _leave(self) -> None:
        before, self._before = self._before, None
        if before is None:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
        if self._foreground:
            with suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)

    def _readable(self) -> None:
        if not self._foreground:
            # It was put into the background: the shell has set the terminal as it likes it.
            self._loop.remove_reader(self._descriptor)
            self._before = None
            return
        try:
            pressed = os.read(self._descriptor, _READ_BYTES)
        except OSError:
            pressed = b""
        if pressed:
            self._press(pressed)
        else:
            self._loop.remove_reader(self._descriptor)  # the terminal has gone

    def _suspend(self) -> None:
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _die(self, number: int) -> None:
        self._leave()
        self._loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
