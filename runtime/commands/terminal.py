"""What a person sees on standard error: text that fits the terminal, and lines at its foot that are drawn anew.

Nothing here starts a thread, hides the cursor or takes a lock: whatever ends the process, the terminal is as it was.
A terminal that is gone is no error: the work goes on without it. Nor does a file name or a model's note reach the
terminal raw: its control characters could move the cursor, set the title, or write lines of their own.
"""

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Sequence

_SMALLEST = 20
"""Columns below which nothing is drawn anew."""
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what has no glyph: controls, direction marks, lone surrogates, separators of lines."""
_KEPT = "\u200d\u200c\ufe0f"
"""Joiners and the variation selector, which emoji and several scripts need within a word."""


def shown(text: str) -> str:
    r"""``text`` on one line with what a terminal would obey, and what it can't write, as escapes.

    >>> print(shown("a\x1b[2J"))
    a\x1b[2J
    """
    text = "".join(_escape(c) if unicodedata.category(c) in _UNSEEN and c not in _KEPT else c for c in text)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def cells(text: str) -> int:
    """Columns that ``text`` takes: two for East Asian wide characters, none for accents that combine."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def shortened(text: str, room: int) -> str:
    """``text`` in at most ``room`` columns: the middle gives way, for its ends are what tells names apart."""
    if cells(text) <= room:
        return text
    gap = "…" if screen.unicode else "..."
    head, tail = text[: len(text) * 2 // 3], text[len(text) * 2 // 3 :]
    while head and cells(head) + cells(tail) + len(gap) > room:
        head, tail = (head[:-1], tail) if len(head) > 2 * len(tail) or not tail else (head, tail[1:])
    return f"{head}{gap}{tail}"


def wrapped(text: str, width: int) -> str:
    """``text`` on lines of ``width`` columns, broken between words only; what follows on is indented by two more."""
    indent = text[: len(text) - len(text.lstrip(" "))]
    lines, row = [], ""
    for gap, word in re.findall(r"( *)([^ ]+)", text):
        if row and cells(row) + cells(gap) + cells(word) > width:
            lines.append(row)
            row = f"{indent}  {word}"
        else:
            row = f"{row}{gap}{word}"
    return "\n".join([*lines, row])


class Screen:
    """Standard error as a person sees it: lines that stay, above lines that change.

    Where it is no terminal each text is one line, whole, and nothing is drawn anew.
    """

    def __init__(self) -> None:
        self._foot: list[str] = []

    @property
    def columns(self) -> int:
        """Of the terminal; 0 where there is none."""
        try:
            if sys.stderr is None or not sys.stderr.isatty():
                return 0
            return os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except (OSError, ValueError):
            return 0

    @property
    def lively(self) -> bool:
        """Whether lines can be drawn anew."""
        return self.columns >= _SMALLEST and os.environ.get("TERM", "") not in ("dumb", "unknown")

    @property
    def coloured(self) -> bool:
        return self.lively and not os.environ.get("NO_COLOR")

    @property
    def unicode(self) -> bool:
        return "utf" in (getattr(sys.stderr, "encoding", None) or "").lower()

    def bar(self, share: float, room: int) -> str:
        """A bar of ``room`` columns, filled to ``share`` (0 to 1)."""
        done = round(room * min(1.0, max(0.0, share)))
        full, empty = ("━", "─") if self.unicode else ("#", "-")
        if self.coloured:
            return f"\x1b[36m{full * done}\x1b[0;2m{empty * (room - done)}\x1b[0m"
        return full * done + empty * (room - done)

    def say(self, *lines: str) -> None:
        """Lines that stay, folded between words where they are longer than the terminal's."""
        columns, foot = self.columns, self._foot
        self.clear()
        self._write("".join(f"{wrapped(shown(line), columns) if columns else shown(line)}\n" for line in lines))
        if foot:
            self.show(foot)

    def show(self, lines: Sequence[str]) -> None:
        """Draw ``lines`` at the foot, in place of those that were there. Each has to fit into ``columns`` - 1."""
        if not self.lively:
            return
        home = self._home()
        self._foot = list(lines[: max(1, self._rows() - 3)])
        # The cursor waits below: what is echoed (^C) or printed by a library does not fold or lengthen a line.
        self._write(home + "".join(f"{line}\x1b[K\n" for line in self._foot) + "\x1b[J")

    def doing(self, text: str) -> None:
        """A line at the foot that says what takes its time, until it is drawn over; on a dumb terminal it stays."""
        if self.lively:
            self.show([shortened(shown(text), self.columns - 1)])
        elif self.columns:
            self.say(text)

    def clear(self) -> None:
        """Take the foot away."""
        if self._foot:
            home, self._foot = self._home(), []
            self._write(f"{home}\x1b[J")

    def _home(self) -> str:
        """What brings the cursor to where the foot begins.

        A terminal that became narrower meanwhile has folded long lines, so each may be several rows now.
        """
        columns = max(1, self.columns)
        rows = sum(max(1, -(-cells(_COLOURS.sub("", line)) // columns)) for line in self._foot)
        return f"\r\x1b[{rows}A" if rows else ""

    def _rows(self) -> int:
        try:
            return os.get_terminal_size(sys.stderr.fileno()).lines or 24
        except (OSError, ValueError):
            return 24

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

screen = Screen()
"""The one that this process has."""
