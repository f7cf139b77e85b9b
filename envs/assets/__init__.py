"""Robot and scene models (MJCF), as package data."""
