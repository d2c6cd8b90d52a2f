"""G11: the same records, however many workers there are, however they read and commit, in any process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kafka.campaign import Execution, Recording, tell
from tests.kafka.places import Template

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

_RUNNER = "streambot.processor.exactly_once"
# Every pair of values of two settings once.
WAYS = [
    (1, 0.0, 1), (1, 0.1, 16), (1, 1.0, 500),
    (2, 0.0, 16), (2, 0.1, 500), (2, 1.0, 1),
    (4, 0.0, 500), (4, 0.1, 1), (4, 1.0, 16),
]  # fmt: skip
HASH_SEEDS = (1, 2)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Template]]:
    """Processes whose `hash` differs."""
    made = [
        Template(tmp_path_factory.mktemp("hashes") / str(seed), hash_seed=seed)
        for seed in HASH_SEEDS
    ]
    yield made
    for template in made:
        template.close()


def ran(recording: Recording, template: Template, name: str, way: tuple, **how) -> Execution:
    workers, commit_every_s, read_records = way
    execution = Execution(recording, name, template)
    knobs = {f"{_RUNNER}:COMMIT_EVERY_S": commit_every_s, f"{_RUNNER}:READ_RECORDS": read_records}
    execution.run_undisturbed(workers, knobs=knobs, **how)
    return execution


@pytest.mark.parametrize("number", range(len(WAYS)))
def test_one_record_digest(recording, undisturbed, templates, number):
    workers, commit_every_s, read_records = way = WAYS[number]
    execution = ran(recording, templates[number % len(templates)], f"way{number}", way)
    assert execution.outcome().complaints(undisturbed) == []
    tell(
        f"{workers} workers, a commit every {commit_every_s} s, {read_records} frames a read, "
        f"hash seed {HASH_SEEDS[number % len(templates)]}: the same digest"
    )


@pytest.mark.nightly
@pytest.mark.parametrize("read_records", [1, 16, 500])
@pytest.mark.parametrize("commit_every_s", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_one_record_digest_all_night(
    recording, undisturbed, templates, workers, commit_every_s, read_records
):
    """Every way, in both kinds of process."""
    for number, template in enumerate(templates):
        name = f"night-{workers}-{commit_every_s}-{read_records}-{number}"
        way = (workers, commit_every_s, read_records)
        assert ran(recording, template, name, way).outcome().complaints(undisturbed) == []


@pytest.mark.parametrize("mutant", ["numbered by commit", "keyed by hash"])
def test_ways_show_what_depends_on_them(recording, undisturbed, templates, mutant):
    """Records that know their commit, or their process, are noticed."""
    execution = ran(recording, templates[0], mutant.replace(" ", "-"), WAYS[0], mutant=mutant)
    found = execution.outcome().complaints(undisturbed)
    assert found, "the digest does not see what is wrong"
    tell(f"ways of working, mutant `{mutant}`: {found[0][:120]}")
