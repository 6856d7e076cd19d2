"""Checkpoints: fetched, unpacked, read without running their code."""
