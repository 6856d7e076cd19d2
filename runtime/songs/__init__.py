"""One song from its file to its stems' files, and the record of it."""

from ortsep.base.errors import TimedOut
from ortsep.songs.separate import Files, SongReport, Stem, pages, places, separate_file

__all__ = ["Files", "SongReport", "Stem", "TimedOut", "pages", "places", "separate_file"]
