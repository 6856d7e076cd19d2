"""Spleeter."""
