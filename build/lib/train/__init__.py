"""Training: raw clips to shards, shards to arrays, arrays to networks, networks to registered checkpoints."""
