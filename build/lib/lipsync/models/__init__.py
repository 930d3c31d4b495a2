"""Lip-sync models: a checkpoint and how to feed it."""
