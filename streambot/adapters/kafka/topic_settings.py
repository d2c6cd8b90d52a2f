"""Settings of topics: what a broker says they are, and setting them.

aiokafka's own request to alter replaces everything that is set on a topic, so it could only put one
setting right by taking the others away. `IncrementalAlterConfigs` (Kafka 2.3 and later) changes what
is named and nothing else; it is spelt out here, in the words of aiokafka's protocol classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Schema, String

from streambot.adapters.kafka.profile import REQUEST_TIMEOUT_S
from streambot.domain.errors import BrokerError, TopicError
from streambot.domain.topic_plan import FoundSetting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streambot.adapters.kafka.connection import Connection

_SET = 0
_OF_TOPIC = 1
"""`config_source` of what is set on the topic itself."""
_REFUSED = frozenset({29, 31})  # the topic, or the cluster, is not for this user


class _AlterResponse(Response):  # type: ignore[misc]  # aiokafka is untyped
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "resources",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class _AlterRequest(RequestStruct):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _AlterResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "config_entries",
                    Array(
                        ("config_name", String("utf-8")),
                        ("operation", Int8),
                        ("config_value", String("utf-8")),
                    ),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class _Alter(Request[_AlterRequest]):  # type: ignore[misc]
    API_KEY = 44

    def __init__(self, topic: str, settings: Mapping[str, str]) -> None:
        entries = [(name, _SET, value) for name, value in settings.items()]
        self._resources = [(int(ConfigResourceType.TOPIC), topic, entries)]

    def build(self, request_struct_class: type[_AlterRequest]) -> _AlterRequest:
        return request_struct_class(self._resources, False)


class TopicSettings:
    """Settings of topics of one broker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def describe(self, topics: Sequence[str]) -> dict[str, dict[str, FoundSetting]]:
        """Settings in force of topics that exist, by topic and name.

        Apache Kafka tells all there are; the embedded broker those that were set; a broker that
        does not know the request tells nothing.

        Raises:
            BrokerError: it refuses.
            TopicError: there is no such topic.
        """
        if not topics:
            return {}
        # All of them: the embedded broker hangs up on a client that names those it wants.
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]
        work = self._connection.admin.describe_configs(wanted)
        try:
            answers = await self._connection.bounded(
                work, REQUEST_TIMEOUT_S, "asking for settings of topics"
            )
        except BrokerError as failure:
            if isinstance(failure.__cause__, IncompatibleBrokerVersion):
                return {}
            raise
        found: dict[str, dict[str, FoundSetting]] = {}
        for answer in answers:
            for code, message, _, topic, entries in answer.resources:
                _raise(code, message, topic)
                found[topic] = {
                    entry[0]: FoundSetting(entry[1] or "", entry[3] == _OF_TOPIC)
                    for entry in entries
                }
        return found

    async def alter(self, topic: str, settings: Mapping[str, str]) -> None:
        """Set these, and leave all others as they are.

        Raises:
            BrokerError: the broker refuses.
            TopicError: no such topic, or no such setting.
        """
        request = _Alter(topic, settings)
        answer = await self._connection.bounded(
            self._connection.admin._send_request(request),  # noqa: SLF001
            REQUEST_TIMEOUT_S,
            f"altering {topic}",
        )
        for code, message, _, name in answer.resources:
            _raise(code, message, name)


def _raise(code: int, message: str | None, topic: str) -> None:
    if not code:
        return
    name = for_code(code).__name__
    why = f"{message} ({name})" if message else name
    if code in _REFUSED:
        raise BrokerError(f"the broker refuses: {why}", where=topic, hint="look at the ACLs")
    raise TopicError(why, where=topic)
