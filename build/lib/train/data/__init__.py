"""Training data: from clips to shards, arrays, augmentation, sampling and corrected sync."""
