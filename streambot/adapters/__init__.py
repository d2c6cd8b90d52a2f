"""The outside world behind the ports: Kafka clients and brokers that streambot starts itself."""
