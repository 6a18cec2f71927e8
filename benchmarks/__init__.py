"""Measurements of lumefield; ``python -m benchmarks.suite`` runs them."""
