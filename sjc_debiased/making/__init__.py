"""How objects are made: scenes, sessions, packs, pictures, sweeps."""
