"""Workloads, the metrics they return, and the gate against a committed baseline."""
