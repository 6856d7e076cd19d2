"""What a graph hears of a chunk and what its outputs mean: one class a domain of the spec, and nothing else knows.

A new domain is one class here, its name in ``models.spec.OUTPUTS`` and a line in ``DOMAINS``. B batch (1 here), C
channels, S stems, F bins, T frames, N samples; all float32.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ortsep.base.arrays import C64, F32
from ortsep.engine.bands import band_spectrum
from ortsep.engine.level import Level, level_of
from ortsep.engine.stft import as_channels, from_channels, istft, stft
from ortsep.models.bands import Bands
from ortsep.models.spec import STFT, ModelSpec


@dataclass(frozen=True)
class Heard:
    """A chunk as a graph takes it, and what else its way back needs."""

    feeds: Mapping[str, F32]
    samples: int
    spectrum: C64 | None = None
    levels: tuple[Level, Level] | None = None
    """Of the waveform and of the spectrum, where the graph's outputs have to be brought back from them."""


@dataclass(frozen=True)
class Domain(ABC):
    """How a graph of this ``spec`` hears a song; graphs of a bag that agree share the work."""

    spec: ModelSpec
    inputs: ClassVar[tuple[str, ...]]
    """Names of the graph's inputs, in alphabetical order."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Names of the graph's outputs in the order that ``sound`` takes them in; empty for the only one."""

    @abstractmethod
    def example(self, mix: F32) -> Mapping[str, F32]:
        """The graph's inputs for the samples [C, N] of one chunk."""

    @property
    def transform(self) -> STFT:
        assert self.spec.stft is not None  # ModelSpec checks that only waveform models have none
        return self.spec.stft

    @property
    def inverse(self) -> STFT:
        return self.spec.inverse or self.transform

    def spectrum(self, mix: F32) -> C64:
        """The STFT of [C, N] that the graph hears, [C, F, T]."""
        spectrum: C64 = stft(self.transform, mix)[:, : self.transform.bins]
        spectrum[:, : self.transform.zero_before] = 0
        return spectrum


class Chunked(Domain):
    """A domain whose graphs turn a chunk of samples into as many samples of each stem."""

    @abstractmethod
    def hear(self, mix: F32, level: Level | None = None) -> Heard:
        """Samples [C, N] as the graph's inputs; a spectrum is standardised by ``level`` or by its own statistics."""

    @abstractmethod
    def sound(self, heard: Heard, outputs: Sequence[F32]) -> F32:
        """The graph's outputs [S, ...], which may be written to, as waveforms [S, C, N]."""

    def example(self, mix: F32) -> Mapping[str, F32]:
        return self.hear(mix).feeds

    def wave(self, spectra: F32 | C64, samples: int) -> F32:
        """Stem spectra, complex or as real channels, as waveforms [S, C, N]."""
        spectra[..., : self.inverse.zero_after, :] = 0
        wave: F32 = istft(self.inverse, spectra, samples)
        return wave


@dataclass(frozen=True)
class Waveform(Chunked):
    """``mix`` [B,C,N] to ``stems`` [B,S,C,N]."""

    inputs = ("mix",)

    def hear(self, mix: F32, level: Level | None = None) -> Heard:
        return Heard({"mix": mix[None]}, mix.shape[-1])

    def sound(self, heard: Heard, outputs: Sequence[F32]) -> F32:
        return outputs[0]


@dataclass(frozen=True)
class Hybrid(Chunked):
    """``mix`` [B,C,N] and ``spectrum`` [B,2C,F,T] to ``stems`` and ``stem_spectra``, whose waveforms are added."""

    inputs = ("mix", "spectrum")
    outputs = ("stems", "stem_spectra")

    def hear(self, mix: F32, level: Level | None = None) -> Heard:
        channels, levels = as_channels(self.spectrum(mix)), None
        if self.spec.normalization.kind == "chunk":
            levels = level_of(mix, self.spec.normalization), level_of(channels, self.spec.normalization)
            mix, channels = levels[0].apply(mix), levels[1].apply(channels)
        return Heard({"mix": mix[None], "spectrum": channels[None]}, mix.shape[-1], levels=levels)

    def sound(self, heard: Heard, outputs: Sequence[F32]) -> F32:
        stems, spectra = outputs
        if heard.levels is not None:
            stems, spectra = heard.levels[0].undo(stems), heard.levels[1].undo(spectra)
        wave = self.wave(spectra, heard.samples)
        wave += stems
        return wave


@dataclass(frozen=True)
class Complex(Chunked):
    """``spectrum`` [B,2C,F,T] to ``stem_spectra`` or masks of it, [B,S,2C,F,T]."""

    inputs = ("spectrum",)

    def hear(self, mix: F32, level: Level | None = None) -> Heard:
        spectrum = self.spectrum(mix)
        channels = as_channels(spectrum)
        if self.spec.normalization.kind == "spectrum":
            channels = (level or level_of(channels, self.spec.normalization)).apply(channels)
        masked = self.spec.output != "stem_spectra"
        return Heard({"spectrum": channels[None]}, mix.shape[-1], spectrum if masked else None)

    def sound(self, heard: Heard, outputs: Sequence[F32]) -> F32:
        (output,) = outputs
        if heard.spectrum is None:
            return self.wave(output, heard.samples)
        masks = from_channels(output)
        if self.spec.output == "masks":
            masks *= heard.spectrum
        else:
            np.multiply(heard.spectrum.real, masks.real, out=masks.real)
            np.multiply(heard.spectrum.imag, masks.imag, out=masks.imag)
        return self.wave(masks, heard.samples)


@dataclass(frozen=True)
class Magnitude(Domain):
    """``magnitude`` [B,C,F,T] to ``masks`` or ``stem_magnitudes`` [B,S,C,F,T]: frames of one STFT, not chunks.

    A filter makes stem spectra of them (``ortsep.stems.masks``).
    """

    inputs = ("magnitude",)

    def example(self, mix: F32) -> Mapping[str, F32]:
        return {"magnitude": self.magnitude(self.spectrum(mix))[None]}

    def magnitude(self, spectrum: C64) -> F32:
        """What the graph hears of frames [C, F, t] of the song's STFT."""
        magnitude: F32 = np.abs(spectrum)
        magnitude[:, : self.transform.zero_before] = 0
        return magnitude


@dataclass(frozen=True)
class Banded(Domain):
    """``magnitude`` [B,C,F,T] of a spectrum of several bands, by the song's peak, to ``masks`` [B,1,C,F,t] of the
    frames in the middle, T less the context on both sides."""

    inputs = ("magnitude",)

    def example(self, mix: F32) -> Mapping[str, F32]:
        """The first window of the song."""
        bands = self.bands
        spectrum = band_spectrum(bands, mix)[..., : bands.window - bands.context]
        heard = np.zeros((2, bands.bins, bands.window), np.float32)
        heard[..., bands.context : bands.context + spectrum.shape[-1]] = np.abs(spectrum)
        return {"magnitude": heard[None] / (heard.max() or np.float32(1))}

    @property
    def bands(self) -> Bands:
        assert self.spec.bands is not None  # ModelSpec checks that its domain has them
        return self.spec.bands


DOMAINS: dict[str, type[Domain]] = {
    "waveform": Waveform,
    "hybrid": Hybrid,
    "complex": Complex,
    "magnitude": Magnitude,
    "bands": Banded,
}


def domain_of(spec: ModelSpec) -> Domain:
    """The domain of a model, or of one graph of a bag by its own spec."""
    return DOMAINS[spec.domain](spec)
