"""Demucs, of every generation."""
