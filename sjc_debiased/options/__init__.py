"""Command-line options, presets and profiles, and what they resolve to."""
