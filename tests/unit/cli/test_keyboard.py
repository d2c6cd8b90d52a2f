"""Keys become commands, whatever they come with; what is under way counts as done."""

import asyncio

import pytest

from streambot.cli.keyboard import HELP, IDLE, Keyboard
from streambot.domain.replay_settings import MAX_SPEED, Speed
from streambot.streams.control import (
    Acknowledgement,
    Pause,
    ReplayStatus,
    Resume,
    SetSpeed,
    Step,
    word_of,
)

HUNDRED = Speed(100)


class Controls:
    """Takes commands, and does them when it is told to."""

    def __init__(self, speed: Speed | None = HUNDRED, *, paused: bool = False) -> None:
        self.speed = speed
        self.paused = paused
        self.given: list = []

    def apply(self, command):
        if self.speed is None:
            return None
        answer = asyncio.get_running_loop().create_future()
        self.given.append((command, answer))
        return answer

    async def answer(self, *, applied: bool = True, reason: str = "") -> None:
        for command, answer in self.given:
            if not answer.done():
                answer.set_result(
                    Acknowledgement(
                        id=command.id, sender=command.sender, number=command.number,
                        command=word_of(command), applied=applied, reason=reason, barrier=1, at=0,
                        status=ReplayStatus.PAUSED, speed="1x",
                    )
                )  # fmt: skip
        await asyncio.sleep(0)

    @property
    def kinds(self) -> list[type]:
        return [type(command) for command, _ in self.given]


def board(controls: Controls) -> tuple[Keyboard, list[str]]:
    said: list[str] = []
    return Keyboard(controls, said.append), said


async def test_space_pauses_and_goes_on_also_where_the_last_one_still_waits():
    controls = Controls()
    keys, _ = board(controls)
    keys.press(b"   ")
    assert controls.kinds == [Pause, Resume, Pause]
    await controls.answer()
    controls.paused = True
    keys.press(b" ")
    assert controls.kinds[-1] is Resume


@pytest.mark.parametrize("key", [b".", b"\x1b[C", b"\x1bOC"])
async def test_keys_that_step(key):
    controls = Controls()
    keys, _ = board(controls)
    keys.press(key + key)
    assert [command.count for command, _ in controls.given] == [1, 1]
    assert controls.kinds == [Step, Step]


async def test_plus_and_minus_double_and_halve_what_was_asked_last():
    controls = Controls(Speed(3, 2))
    keys, _ = board(controls)
    keys.press(b"+=-__")
    assert [command.speed for command, _ in controls.given] == [
        "3x", "6x", "3x", "1.5x", "0.75x",
    ]  # fmt: skip
    await controls.answer()
    keys.press(b"+")
    assert controls.given[-1][0].speed == "3x"


async def test_speeds_that_nobody_can_ask_for_are_said_and_not_asked():
    controls = Controls(Speed(1, 512))
    keys, said = board(controls)
    keys.press(b"-")
    controls.speed = Speed(10**9)
    keys.press(b"+")
    controls.speed = MAX_SPEED
    keys.press(b"+-")
    assert controls.given == []
    assert "slow" in said[0]
    assert "fast" in said[1]
    assert "half of max" in said[2]


async def test_other_keys_mean_nothing_and_a_question_mark_helps():
    controls = Controls()
    keys, said = board(controls)
    keys.press(b"\x1b[D\x1b[A\x1b[15~\x1b[1;5Aqx\xc3\xa9\x00\r\n\x1b?")
    assert controls.given == []
    assert said == [HELP]


async def test_a_key_that_is_pressed_while_nothing_goes_says_so():
    controls = Controls(None)
    keys, said = board(controls)
    keys.press(b" .+-")
    assert said == [IDLE] * 4
    assert controls.given == []


async def test_a_refusal_is_said():
    controls = Controls()
    keys, said = board(controls)
    keys.press(b" ")
    await controls.answer(applied=False, reason="the replay is paused already")
    assert said == ["the replay is paused already"]


async def test_each_command_has_an_id_of_its_own_and_they_are_numbered():
    controls = Controls()
    keys, _ = board(controls)
    keys.press(b" .+ .")
    commands = [command for command, _ in controls.given]
    assert len({command.id for command in commands}) == 5
    assert [command.number for command in commands] == [1, 2, 3, 4, 5]
    assert isinstance(commands[2], SetSpeed)


async def test_without_a_terminal_nothing_starts():
    keys, _ = board(Controls())  # pytest has put a file in the place of stdin
    assert not keys.start()
    keys.stop()
