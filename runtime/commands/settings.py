"""How a run goes and what it tells, as typed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ortsep.base.errors import UsageError

_LONGEST = 30 * 86400.0
"""Seconds that can be given to a song."""


@dataclass(frozen=True)
class Far:
    """What was typed for long lists and clusters."""

    manifest: str | None = None
    shard: str | None = None
    on: str | None = None
    tries: int = 3
    results: Path | None = None


@dataclass(frozen=True)
class RunSettings:
    """How a run goes and what it tells, as typed."""

    model: str | None = None
    then: tuple[str, ...] = ()
    """Further models behind the first: MODEL or MODEL@STEM."""
    recursive: bool = False
    jobs: int = 1
    raw: str | None = None
    """What headerless samples on standard input are: FORMAT:RATE:CHANNELS."""
    timeout: float | None = None
    """Seconds for a song."""
    progress: Literal["bar", "json"] = "bar"
    report: bool = False
    """A page with pictures beside the stems of each song."""
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    far: Far = Far()
    dry: bool = False
    """Say what would be done, and do nothing."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout <= _LONGEST:  # NaN too
            raise UsageError(f"--timeout {self.timeout:g} is no time for a song; give seconds up to {_LONGEST:.0f}")
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose exclude each other; leave one of them out")

    @property
    def draws(self) -> bool:
        """Whether sentences are for a person to read."""
        return self.progress != "json" and not self.quiet
