"""Bytes on the log: frames of ticks, orders, sequence numbers, ports, and an in-process log."""
