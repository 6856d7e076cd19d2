"""The blocks of code in a page of Markdown, and the commands in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

PROGRAM = re.compile(r"(?:\w+=\S+ )*(?:\.venv\S*/bin/)?(?:ortsep|make|python|pip|ffmpeg|curl|eval|g\+\+|\.\.\.)\s")
"""What a line of shell begins with; the dots stand for what a reader puts before a pipe."""


@dataclass(frozen=True)
class Block:
    """One block: where it begins, the language behind its fence (empty for an indented one), its lines."""

    page: str
    line: int
    language: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def commands(self) -> tuple[str, ...]:
        """Lines of shell, what a backslash folds put together. Behind ``$`` in a block that shows answers too."""
        if self.language not in ("", "sh") or self.text.startswith(">>>"):
            return ()
        joined = self.text.replace("\\\n", " ").splitlines()
        typed = [line[2:] for line in joined if line.startswith("$ ")] or joined
        return tuple(line for line in typed if self.language == "sh" or PROGRAM.match(f"{line} "))

    @property
    def others(self) -> tuple[str, ...]:
        """Lines that are neither a command, nor a comment, nor what a command answers."""
        if not self.commands or any(line.startswith("$ ") for line in self.lines):
            return ()
        joined = self.text.replace("\\\n", " ").splitlines()
        return tuple(line for line in joined if line and line not in self.commands and not line.startswith("#"))

    @property
    def label(self) -> str:
        first = (self.commands or self.lines)[0]
        return f"{self.page}: {' '.join(first.split('#')[0].split())[:60]}"


def blocks(page: str, text: str) -> Iterator[Block]:
    """Fenced blocks, and indented ones behind an empty line, which may have empty lines in them."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line, begin = lines[at], at
        if line.startswith("```"):
            at = next(k for k in range(at + 1, len(lines)) if lines[k].startswith("```")) + 1
            yield Block(page, begin + 1, line[3:].strip(), tuple(lines[begin + 1 : at - 1]))
        elif line.startswith("    ") and line.strip() and not (begin and lines[begin - 1].strip()):
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            found = "\n".join(each[4:] for each in lines[begin:at]).rstrip()
            yield Block(page, begin + 1, "", tuple(found.splitlines()))
        else:
            at += 1
