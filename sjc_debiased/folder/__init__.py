"""Run folders: their names, locks, logs and checkpoints, and their one reader."""
