"""Tasks: what is trained, each with its losses, batches and validation."""
