"""ReSyncED: the real-world benchmark. Sets, systems, the runner, the store, the leaderboard, and people's votes."""
