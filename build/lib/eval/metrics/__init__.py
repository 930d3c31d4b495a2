"""Measures, a family a module: pure functions on arrays, and what each says of a file."""
