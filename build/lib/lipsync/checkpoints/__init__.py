"""Checkpoints: the registry and its cards, downloads, state dicts, quantised storage."""
