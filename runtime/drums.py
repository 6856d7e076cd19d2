"""``ortsep.drums``: the public name of ``ortsep.songs.drums``."""

from ortsep.songs.drums import separate_drum_stems

__all__ = ["separate_drum_stems"]
