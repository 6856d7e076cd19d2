"""Moises-Light."""
