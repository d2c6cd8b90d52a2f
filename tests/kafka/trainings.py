"""Trainings on Apache Kafka whose processes die, and what has to hold for what they left there.

What is checked is told by the topics alone: `fates` reads the experience with a few lines of its own
and says which fragments every update has to be made of, whatever died. The learner's status records,
its checkpoint and the weights that it published are held against that.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.kafka.campaign import read_all
from tests.kafka.places import ROOT, Kafka
from tests.waiting import until

BATCH, MAX_LAG = 512, 8
SMALL = (
    "train", "spy-four-sessions", "-i", "SPY", "--set", "episode_bars=30", "--set", "max_quantity=2",
    "--hidden", "8", "--envs", "16", "--rollout", "16", "--batch", str(BATCH), "--actors", "2",
    "--learn", "epochs=1", "--checkpoint-every", "5", "--json",
)  # fmt: skip
NOT_TOLD = {"steps": "none", "experience": "nothing"}
PATIENCE_S = 240.0
"""A learner starts with Ray and all its actors, on a machine that has much else to do."""
INSIDE = ("a1", "a2")
OUTSIDE = "out"
NOISE = (
    "Traceback", "never retrieved", "Unclosed", "unclosed", "was destroyed", "Exception in", "aiokafka",
    "raylet", "(pid=", "WARNING", "ERROR", "INFO",
)  # fmt: skip
"""Words that no person should read on stderr, whatever died."""


class Life:
    """A process of a training, and all that it said."""

    def __init__(self, name: str, words: tuple[str, ...], cwd: Path, folder: Path, **env: str):
        self.name, self._base = name, folder / name
        self._base.parent.mkdir(parents=True, exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBOT_")}
        kept = {k: v for k, v in os.environ.items() if k == "STREAMBOT_KERNEL_CACHE"}
        with self._file("out").open("w") as out, self._file("err").open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, *words], cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                env={**clean, **kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **env},
            )  # fmt: skip
        self.pid = self._process.pid

    def _file(self, kind: str) -> Path:
        return self._base.with_suffix(f".{kind}")

    @property
    def code(self) -> int | None:
        return self._process.poll()

    @property
    def out(self) -> list[dict[str, Any]]:
        """The objects that it printed; a line that is not whole yet is left."""
        return [json.loads(x) for x in self._file("out").read_text().split("\n")[:-1]]

    @property
    def err(self) -> str:
        return self._file("err").read_text()

    def end(self, code: int = 0) -> dict[str, Any]:
        """The last object that it printed, once it has ended by itself."""
        until(lambda: self.code is not None, f"the end of {self.name}", PATIENCE_S)
        assert self.code == code, f"{self.name}: {self.code}\n{self.err}"
        self.quiet()
        return self.out[-1] if self.out else {}

    def quiet(self) -> None:
        """Nothing stands on stderr but words for people."""
        odd = [word for word in NOISE if word in self.err]
        assert not odd, f"{self.name} says {odd}:\n{self.err}"

    def send(self, number: int) -> None:
        if self.code is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """As the system would kill it."""
        self.send(signal.SIGKILL)
        self._process.wait()


class Training:
    """A training with two actors of its own and one from outside.

    Args:
        kafka: where its streams are.
        folder: everybody's.
        run: its name.
        program: what is run instead of the command line.
    """

    def __init__(
        self, kafka: Kafka, folder: Path, run: str, program: tuple[str, ...] = ("-m", "streambot.cli.main")
    ) -> None:  # fmt: skip
        self.kafka, self.folder, self.run, self._program = kafka, folder, run, program
        self.policy = folder / "policy"
        self.lives: list[Life] = []
        # So short that the sockets of Ray fit; what a Ray that is killed leaves goes with it.
        self._temporary = tempfile.mkdtemp(prefix="k", dir="/tmp")
        self.learner: Life
        self.outside: Life
        self._ended = dict.fromkeys(INSIDE, 0)

    def _begins(self, *words: str, **env: str) -> Life:
        words = (*self._program, *words, "--bootstrap-servers", self.kafka.address)
        name = f"{len(self.lives):02d}-{words[len(self._program)]}"
        life = Life(name, words, self.folder, self.folder / "said", TMPDIR=self._temporary, **env)
        self.lives.append(life)
        return life

    def begin(self, *more: str, **env: str) -> None:
        self.learner = self._begins(
            *SMALL, "--run", self.run, "--out", str(self.policy), *more, **env
        )

    def go_on(self, *more: str, **env: str) -> None:
        self.learner = self._begins("train", "--resume", str(self.policy), "--json", *more, **env)

    def begin_outside(self, **env: str) -> None:
        self.outside = self._begins(
            "actor", "--run", self.run, "--agent", OUTSIDE, "--wait", "240s", "--json", **env
        )

    @property
    def told(self) -> list[dict[str, Any]]:
        """What all learners said of their updates."""
        return [
            said for life in self.lives for said in life.out
            if said["schema"] == "streambot.training/1"
        ]  # fmt: skip

    @property
    def update(self) -> int:
        """The newest update of the learner that lives; 0: it has made none."""
        said = [s for s in self.learner.out if s["schema"] == "streambot.training/1"]
        return int(said[-1]["update"]) if said else 0

    def until_update(self, more: int) -> int:
        """Wait until the learner has made so many more."""
        began = self.update

        def made() -> bool:
            assert self.learner.code is None, f"the learner has ended: {self.learner.err}"
            return self.update and self.update >= began + more

        until(made, f"{more} updates beyond {began}", PATIENCE_S)
        return self.update

    def pids(self) -> dict[str, int]:
        """Processes of the learner's own actors, by their names."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                words = _words(entry / "cmdline")
                if "actor" in words and self.run in words and "--agent" in words:
                    name = words[words.index("--agent") + 1]
                    if name in INSIDE:
                        found[name] = int(entry.name)
        return found

    def until_acts(self, name: str) -> None:
        """Wait until the life that an actor has now has brought something."""
        until(lambda: self._acts(name), f"{name} acts", PATIENCE_S)

    def _acts(self, name: str) -> bool:
        if name == OUTSIDE:
            return "weights" in self.outside.err
        lives = self._said(name)
        return len(lives) > self._ended[name] and "weights" in lives[-1]

    def _said(self, name: str) -> list[str]:
        """What an actor of the learner's own has said, by life."""
        log = self.folder / "runs" / self.run / "actors" / f"{name}.log"
        return log.read_text().split(f"training {self.run}: ")[1:] if log.exists() else []

    def kill_learner(self) -> None:
        """Its actors die with it."""
        self.learner.kill()
        until(lambda: not self.pids(), "the end of actors whose learner was killed")
        self._ended = {name: len(self._said(name)) for name in INSIDE}

    def pid(self, name: str) -> int:
        """Of one of the learner's own actors, once it is there."""
        return int(until(lambda: self.pids().get(name), f"actor {name}", PATIENCE_S))

    def kill_inside(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)
        self._ended[name] = len(self._said(name))

    def kept(self) -> dict[str, Any]:
        """What the checkpoint says of itself."""
        return json.loads((self.policy / "checkpoint.json").read_bytes())

    def close(self) -> None:
        for life in self.lives:
            life.send(signal.SIGCONT)
            life.kill()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def topic(self, stream: str) -> str:
        return f"streambot.{self.run}.{stream}"

    def records(self, stream: str) -> list[Any]:
        return read_all(self.kafka, self.topic(stream)).get(0, [])


def _words(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


class Piece(NamedTuple):
    """A fragment, as far as counting needs it."""

    offset: int
    life: tuple[str, int]
    sequence: int
    env: int
    episode: int
    begins: int
    steps: int
    over: bool
    weights: int


def header(value: bytes) -> dict[str, Any]:
    """The header of an envelope."""
    (size,) = struct.unpack_from("<I", value, 8)
    return json.loads(value[12 : 12 + size])


def pieces(records: list[Any]) -> list[Piece]:
    """All that actors wrote, in the order of the topic."""
    heads = [(record.offset, header(record.value)) for record in records]
    return [
        Piece(
            offset, (h["actor"], h["incarnation"]), h["sequence"], h["env"], h["episode"],
            h["t_started"], h["steps"], h["terminated"] or h["truncated"], h["weights"],
        )
        for offset, h in heads
    ]  # fmt: skip


def not_contiguous(found: list[Piece]) -> list[str]:
    """Where a life misses something, or has it twice; empty: nowhere."""
    complaints = []
    at: dict[tuple[str, int], int] = {}
    steps: dict[tuple[str, int, int], tuple[int, int]] = {}
    for piece in found:
        if piece.sequence != at.get(piece.life, 0):
            complaints.append(f"{piece}: fragment {at.get(piece.life, 0)} would be next")
        at[piece.life] = piece.sequence + 1
        key = (*piece.life, piece.env)
        if (piece.episode, piece.begins) != steps.get(key, (0, 0)):
            complaints.append(f"{piece}: step {steps.get(key, (0, 0))} would be next")
        end = piece.begins + piece.steps
        steps[key] = (piece.episode + 1, 0) if piece.over else (piece.episode, end)
    return complaints


class Fates(NamedTuple):
    """What has to become of every fragment.

    Attributes:
        batches: of every update.
        stale: dropped on the way. waiting: not reached.
    """

    batches: list[list[Piece]]
    stale: list[Piece]
    waiting: list[Piece]


def fates(found: list[Piece], updates: int) -> Fates:
    """A batch is made of the next fragments in the topic that are not too old for its update."""
    at, batches, stale = 0, [], []
    for done in range(updates):
        batch: list[Piece] = []
        while sum(piece.steps for piece in batch) < BATCH:
            (stale if done - found[at].weights > MAX_LAG else batch).append(found[at])
            at += 1
        batches.append(batch)
    return Fates(batches, stale, found[at:])


class Evidence(NamedTuple):
    """What the topics hold, and what the learner says of itself.

    Attributes:
        topic: of experience.
        found: in it.
        told: values of the status stream, in their order.
        updates, steps, buffer: as the checkpoint has them.
    """

    topic: str
    found: list[Piece]
    told: list[dict[str, Any]]
    updates: int
    steps: int
    buffer: dict[str, Any]

    @classmethod
    def of(cls, training: Training) -> Evidence:
        head = training.kept()
        return cls(
            training.topic("experience"), pieces(training.records("experience")),
            [json.loads(record.value) for record in training.records("status")],
            int(head["progress"]["updates"]), int(head["progress"]["steps"]),
            json.loads(head["about"]["buffer"]),
        )  # fmt: skip

    def repeated(self) -> int:
        """How many updates were made again."""
        return len(self.told) - len({said["update"] for said in self.told})


def complaints(seen: Evidence) -> list[str]:
    """In what all that is seen does not agree; empty: in nothing."""
    right = fates(seen.found, seen.updates)
    return [
        *not_contiguous(seen.found),
        *_wrong_updates(seen, right.batches),
        *_wrong_checkpoint(seen, right),
    ]


def _wrong_updates(seen: Evidence, batches: list[list[Piece]]) -> list[str]:
    """Every update is told, and each time it was the same one, of the batch that it has to have."""
    wrong, told, behind = [], dict[int, list[Any]](), 0
    for said in seen.told:
        told.setdefault(said["update"], []).append(said)
    for update, batch in enumerate(batches, 1):
        behind += _steps(batch)
        offsets = {seen.topic: [batch[0].offset, batch[-1].offset]}
        wrong += [
            f"update {update}: {said['steps']} steps behind it, of {said['experience']}, and not "
            f"{behind} of {offsets}"
            for said in told.get(update, [NOT_TOLD])
            if (said["steps"], said["experience"]) != (behind, offsets)
        ]
        if len({(said["reward"], said["lag"]) for said in told.get(update, [])}) > 1:
            wrong.append(f"update {update} was made again, and is another one")
    return wrong + [f"update {u} is told, and there is none" for u in told if u > seen.updates]


def _wrong_checkpoint(seen: Evidence, right: Fates) -> list[str]:
    """What lies in front of its offset was learnt from or dropped, and is counted so."""
    wrong, end = [], seen.buffer["offsets"][seen.topic]
    taken = [piece for batch in right.batches for piece in batch]
    passed = [piece for piece in right.waiting if piece.offset < end]
    if end <= taken[-1].offset or any(seen.updates - p.weights <= MAX_LAG for p in passed):
        wrong.append(f"goes on at {end}, and {taken[-1].offset} was learnt from last")
    if seen.steps != _steps(taken):
        wrong.append(f"{seen.steps} steps, and not {_steps(taken)}")
    stale = right.stale + passed
    sums = {
        "read": len(taken) + len(stale), "taken": len(taken), "stale": len(stale),
        "steps": _steps(taken) + _steps(stale), "taken_steps": _steps(taken), "stale_steps": _steps(stale),
    }  # fmt: skip
    counted = {name: count for name, count in sums.items() if count}
    if seen.buffer["counts"] != counted:
        wrong.append(f"counts {seen.buffer['counts']}, and not {counted}")
    return wrong


def _steps(found: list[Piece]) -> int:
    return sum(piece.steps for piece in found)


def other_weights(training: Training) -> list[int]:
    """Updates that were made again and gave other weights; none: all were the same to the bit."""
    digests: dict[int, set[str]] = {}
    for record in training.records("policy"):
        head = header(record.value)
        digests.setdefault(head["sequence"], set()).add(head["head"]["digest"])
    return [update for update, found in digests.items() if len(found) > 1]
