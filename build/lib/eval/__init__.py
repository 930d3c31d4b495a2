"""Evaluation: `python -m eval score FILE…`, and every measure as functions on arrays; see docs/metrics.md."""
