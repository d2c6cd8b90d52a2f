"""The simulated log keeps what is promised of every log; only then do its schedules mean anything."""

from tests.conformance.test_log import *  # noqa: F403
from tests.conformance.test_transactions import *  # noqa: F403
