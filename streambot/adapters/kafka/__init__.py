"""Kafka behind the ports of `streams`: the embedded broker and Apache Kafka, through aiokafka."""

from streambot.adapters.kafka.detect import detect_profile
from streambot.adapters.kafka.log import KafkaLog
from streambot.adapters.kafka.profile import APACHE, EMBEDDED, BrokerProfile

__all__ = ["APACHE", "EMBEDDED", "BrokerProfile", "KafkaLog", "detect_profile"]
