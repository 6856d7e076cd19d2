"""LarsNet."""
