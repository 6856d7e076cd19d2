"""Where the tests' own files lie."""

from pathlib import Path

DATA = Path(__file__).parent / "data"
GRAPHS = DATA / "graphs"
ROOT = Path(__file__).parents[1]
"""The checkout."""
