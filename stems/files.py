"""Writing the stems of one song: block by block, under their final names only when all are complete.

Float WAV is written as it comes. Formats of limited range may need one gain for all stems of a song, and the peak is
known only at the end: those are kept as float32 on disk (never in memory) and encoded at the close.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile

from ortsep.base import whole
from ortsep.base.arrays import F32
from ortsep.base.errors import OutputError
from ortsep.base.threads import ahead
from ortsep.stems.encoders import RawFile, encode, encoding, header
from ortsep.stems.tags import Tags, write_tags

MEND = "name another folder with -o"


@dataclass(frozen=True)
class Written:
    """A finished stem. ``peak`` and ``rms`` are the file's, in full scales, over all channels, after ``gain``."""

    stem: str
    path: Path | None
    sample_rate: int
    channels: int
    samples: int
    peak: float
    rms: float
    gain: float
    """The one factor of all stems of the song; 1 unless a peak would have clipped."""
    format: str
    subtype: str
    audio: F32 | None = None
    """The samples [C, N], of a stem that went to no file."""
    cut: int = 0
    """Samples beyond full scale that the clip mode did not save."""


class Tally:
    """What went through of one stem: samples a channel, peak, energy."""

    def __init__(self, stem: str, sample_rate: int, channels: int) -> None:
        self.stem, self.sample_rate, self.channels = stem, sample_rate, channels
        self.samples, self.peak, self._energy = 0, 0.0, 0.0
        self.cut = 0

    def add(self, block: F32) -> None:
        """Count a block [C, n]. Raises OutputError for samples that are not finite."""
        if block.shape[1] == 0:
            return
        peak = float(max(block.max(), -block.min()))
        if not np.isfinite(peak):
            at = self.samples / self.sample_rate
            raise OutputError(f"the stem {self.stem} is not finite after {at:.1f} s; validate the model's graph")
        flat = block.ravel()
        self.peak = max(self.peak, peak)
        self._energy += float(np.einsum("i,i", flat, flat, dtype=np.float64))
        self.samples += block.shape[1]

    def written(
        self, path: Path | None, format: str, subtype: str, gain: float = 1.0, audio: F32 | None = None
    ) -> Written:
        """The record of the finished stem."""
        rms = float(np.sqrt(self._energy / max(1, self.samples * self.channels)))
        of = (self.sample_rate, self.channels, self.samples, self.peak * gain, rms * gain, gain)
        return Written(self.stem, path, *of, format, subtype, audio, self.cut)


class Whole:
    """What is written whole or not at all: a ``with`` that an error leaves aborts, any other completes."""

    def close(self) -> Any:
        """Complete it."""

    def abort(self) -> None:
        """Leave nothing behind."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class StemWriter(Whole):
    """The stems of one song on their way to disk.

    >>> with StemWriter({"drums": Path("drums.wav")}, 44100, 2, samples=3) as writer:   # doctest: +SKIP
    ...     writer.write({"drums": block})                                              # float32 [C, n]
    >>> writer.written["drums"].peak                                                    # doctest: +SKIP

    Files are written as ``ortsep.base.whole`` writes, and get their names, all or none, at the ``close`` that leaving
    the context calls; an exception, Ctrl-C included, calls ``abort``, which removes them and the folders made for them.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        sample_rate: int,
        channels: int,
        *,
        samples: int,
        format: str = "wav",
        subtype: str | None = None,
        bitrate: int | None = None,
        quality: float | None = None,
        clip: str = "rescale",
        tags: Tags | None = None,
    ) -> None:
        """Make the folders and temporary files for stems of ``samples`` samples, encoded as ``encoding`` says.

        ``clip``: one of ``encoders.CLIPS``. ``tags``: what is written into each file besides.

        Raises UsageError for what the format can't hold, OutputError where a file can't be made, or is being written by
        another run.
        """
        shape: dict[str, int] = {"sample_rate": sample_rate, "channels": channels, "samples": samples}
        self.encoding = encoding(format, subtype, **shape, bitrate=bitrate, quality=quality)
        self._clip, self._format, self._tags = clip, format, tags or Tags()
        self.notes: list[str] = []
        self.written: dict[str, Written] = {}
        self._paths, self._rate, self._channels, self._samples = dict(paths), sample_rate, channels, samples
        self._tally = {stem: Tally(stem, sample_rate, channels) for stem in paths}
        self._folders: list[Path] = []
        self._partials: dict[str, Path] = {}
        self._raw: dict[str, Path] = {}
        self._open: dict[str, RawFile] = {}
        self._done = False
        front = header(self.encoding, sample_rate, channels, samples) if self.encoding.exact else b""
        try:
            for stem, path in self._paths.items():
                with saying(path):
                    self._make_folder(path.parent)
                    self._partials[stem] = whole.begin(path, MEND)
                    if not self.encoding.exact:
                        self._raw[stem] = whole.begin(path, MEND, alone=False)
                    self._open[stem] = RawFile(self._raw.get(stem, self._partials[stem]), front)
        except BaseException:
            self.abort()
            raise

    def write(self, blocks: Mapping[str, F32]) -> None:
        """Append one block [C, n] to every stem. Raises OutputError where the disk or the samples are not usable."""
        for stem, path in self._paths.items():
            block = blocks[stem]
            if self._clip == "clamp" or (self._clip == "none" and not self.encoding.exact):
                self._tally[stem].cut += int(np.count_nonzero(np.abs(block) > 1))
            if self._clip == "clamp":
                block = np.clip(block, -1, 1)
            self._tally[stem].add(block)
            with saying(path):
                self._open[stem].write(block.T)

    def close(self) -> dict[str, Written]:
        """Complete all files and give them their names. Raises OutputError; then all is as it was before."""
        if self._done:
            return self.written
        try:
            for stem, tally in self._tally.items():
                if tally.samples != self._samples:
                    got = f"{tally.samples} of {self._samples} samples"
                    raise OutputError(f"{self._paths[stem]} got {got}; run the separation again")
            for stem, file in self._open.items():
                with saying(self._paths[stem]):
                    file.close()
            highest = max((tally.peak for tally in self._tally.values()), default=0.0)
            fits = self.encoding.exact or self._clip != "rescale" or highest <= 1.0
            gain = 1.0 if fits else 1.0 / highest
            for stem in self._raw:
                self._encode(stem, gain)
            for stem, path in self._paths.items():
                with saying(path):
                    self.notes += write_tags(self._partials[stem], self._format, self._tags)
            whole.replace_all([(self._partials[stem], path) for stem, path in self._paths.items()], MEND)
        except BaseException:
            self.abort()
            raise
        format, subtype = self.encoding.format, self.encoding.subtype
        for stem, path in self._paths.items():
            self.written[stem] = self._tally[stem].written(path, format, subtype, gain)
        self._release()
        return self.written

    def abort(self) -> None:
        """Remove whatever is not finished, and the folders that were made for it. Never raises."""
        for file in self._open.values():
            with contextlib.suppress(Exception):
                file.close()
        self._release()
        for folder in reversed(self._folders):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _release(self) -> None:
        self._done = True
        for partial in (*self._partials.values(), *self._raw.values()):
            whole.drop(partial)

    def _make_folder(self, folder: Path) -> None:
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            self._folders.append(new)

    def _encode(self, stem: str, gain: float) -> None:
        """Turn a stem's float32 file into the wanted format, times ``gain``."""
        shape = (self._rate, self._channels, self._samples)
        steps = encode(self._raw[stem], self._partials[stem], *shape, self.encoding, gain)
        with saying(self._paths[stem]), contextlib.closing(ahead(steps)) as running:
            deque(running, maxlen=0)
        whole.drop(self._raw[stem])  # at once: the next stem may need its room


@contextlib.contextmanager
def saying(path: Path) -> Iterator[None]:
    """Turn the errors of writing ``path`` into an OutputError that names it, the cause and the mend."""
    try:
        with whole.saying(path, MEND):
            yield
    except soundfile.LibsndfileError as error:
        cause = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise OutputError(f"{path} can't be written ({cause}); use another --format") from error
