"""2D models: chosen by name, found, fetched, checked and loaded."""
