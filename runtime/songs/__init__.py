"""One song from its file to its stems' files, and the record of it."""

from ortsep.base.errors import TimedOut
from ortsep.songs.record import Files, SongReport, Stem
from ortsep.songs.separate import places, separate_file

__all__ = ["Files", "SongReport", "Stem", "TimedOut", "places", "separate_file"]
