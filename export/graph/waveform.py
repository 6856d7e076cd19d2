"""The other way round: a model as one graph that takes a waveform, for programs without an STFT.

``mix`` [1, C, N] to ``stems`` [1, S, C, N] for a chunk of fixed length: what ortsep does with one chunk, transforms,
masks, gains and derived stems included, and the standardisation of the song by the chunk's own statistics. The graphs
of a bag become one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from ortsep.base.errors import ModelError
from ortsep.engine.stft import frame_count
from ortsep.export.graph.builder import Graph
from ortsep.export.graph.transforms import channels_of, istft_nodes, parts_of, stft_nodes
from ortsep.models.spec import STFT, Chunks, Member, ModelSpec, Normalization, Stepped

SECONDS = 10.0
"""Length of the chunks of a model that takes any."""


@dataclass(frozen=True)
class Part:
    """A graph of a model with what is its own: its member, and the spec that its file carries."""

    member: Member
    spec: ModelSpec
    model: onnx.ModelProto


def waveform_samples(spec: ModelSpec) -> int:
    """The length of the chunks that the graph will take."""
    if spec.chunks is not None:
        length, takes = spec.chunks.length, spec.chunks.takes
        if isinstance(takes, Stepped):
            return max(takes.least, length + (takes.least - length) % takes.step)
        return length
    assert spec.stft is not None and spec.blocks is not None
    if not spec.blocks.padded:
        return round(SECONDS * spec.sample_rate)
    samples = spec.blocks.frames * spec.stft.hop
    while frame_count(spec.stft, samples) > spec.blocks.frames:
        samples -= 1
    return samples


def waveform_spec(spec: ModelSpec) -> ModelSpec:
    """What the graph's own spec says: a waveform model whose stems are all its own."""
    standardised = spec.normalization.kind in ("track", "spectrum")
    notes = ("standardised by each chunk's own statistics, not by the song's",) if standardised else ()
    return replace(
        spec,
        stems=spec.names,
        domain="waveform",
        output="stems",
        stft=None,
        inverse=None,
        chunks=Chunks(waveform_samples(spec), overlap=0.25),
        blocks=None,
        normalization=Normalization(),
        filter=None,
        gains=(),
        derived=(),
        bag=(),
        notes=(*spec.notes, *notes),
    )


def waveform_graph(spec: ModelSpec, parts: Sequence[Part]) -> onnx.ModelProto:
    """One graph of a model's graphs. Raises ModelError for a filter that can't be part of a graph."""
    samples, channels = waveform_samples(spec), spec.channels
    g = Graph(f"{spec.name}, waveform")
    mix = g.reshape(g.input("mix", (1, channels, samples)), channels, samples)
    heard, mean, deviation = mix, "", ""
    if spec.normalization.kind == "track":
        heard, mean, deviation = _standardised(g.scope("level"), mix, spec, samples)
    inside = _Inside(g, spec, heard, samples)
    stems = inside.magnitude(parts) if spec.domain == "magnitude" else inside.weighted(parts)
    if mean:
        stems = g.add(g.mul(stems, deviation), mean)
    if spec.gains:
        stems = g.mul(stems, g.const(np.reshape(spec.gains, (-1, 1, 1))))
    rows = [stems]
    for derived in spec.derived:
        taken = g.op("Gather", stems, g.ints(*(spec.stems.index(name) for name in derived.minus)), axis=0)
        total = g.op("ReduceSum", taken, g.ints(0), keepdims=1)
        rows.append(g.sub(mix, g.mul(total, g.const(np.float32(derived.gain)))))
    together = g.concat(rows, 0) if len(rows) > 1 else stems
    shape = (1, len(spec.names), channels, samples)
    g.output(g.reshape(together, *shape), "stems", shape)
    return g.model()


def _standardised(g: Graph, mix: str, spec: ModelSpec, samples: int) -> tuple[str, str, str]:
    """The mixture less the mean of its mono mix, over its deviation; mean and deviation [1, 1]."""
    mono = g.mean(mix, 0)
    mean, deviation = _statistics(g, mono, samples, spec.normalization)
    return g.div(g.sub(mix, mean), deviation), mean, deviation


def _statistics(g: Graph, x: str, count: int, normalization: Normalization) -> tuple[str, str]:
    """Mean and deviation of all ``count`` values, [1, 1]: summed in rows, since flat sums in float32 are inexact."""
    width = max(w for w in range(1, round(count**0.5) + 1) if count % w == 0)
    rows = g.reshape(x, count // width, width)
    mean = g.mean(rows, 0, 1)
    centred = g.sub(rows, mean)
    scale = g.const(np.float32(count / (count - normalization.ddof)))
    variance = g.mul(g.mean(g.mul(centred, centred), 0, 1), scale)
    return mean, g.add(g.op("Sqrt", variance), g.const(np.float32(normalization.eps)))


@dataclass
class _Inside:
    """Around the graphs of a model: ``heard`` is the (standardised) mixture [C, N]."""

    g: Graph
    spec: ModelSpec
    heard: str
    samples: int

    def __post_init__(self) -> None:
        self._transforms: dict[STFT, tuple[str, str]] = {}

    def parts(self, transform: STFT) -> tuple[str, str]:
        """The mixture's real and imaginary parts [C, F, T]; each transform once."""
        if transform not in self._transforms:
            self.g.scope("stft")
            made = stft_nodes(self.g, self.heard, transform, self.spec.channels, self.samples)
            self._transforms[transform] = made
        return self._transforms[transform]

    def weighted(self, parts: Sequence[Part]) -> str:
        """The weighted mean of what the graphs give as waveforms: [S, C, N]."""
        totals = [sum(p.member.weights[s] for p in parts if s in p.member.rows) for s in range(len(self.spec.stems))]
        sums: list[str] = [""] * len(totals)
        for k, part in enumerate(parts):
            used = [(r, s) for r, s in enumerate(part.member.rows) if s >= 0 and part.member.weights[s] > 0]
            waves = self.waves(part, [r for r, _ in used], f"graph{k}")
            for place, (_, s) in enumerate(used):
                share = part.member.weights[s] / totals[s]
                row = self.g.slice(waves, 0, place, place + 1)
                row = row if share == 1.0 else self.g.mul(row, self.g.const(np.float32(share)))
                sums[s] = self.g.add(sums[s], row) if sums[s] else row
        return self.g.concat(sums, 0) if len(sums) > 1 else sums[0]

    def waves(self, part: Part, rows: Sequence[int], prefix: str) -> str:
        """What a graph gives of its stems ``rows``, as waveforms [rows, C, N]."""
        g, spec, channels = self.g, part.spec, self.spec.channels
        mix = g.reshape(self.heard, 1, channels, self.samples)
        if spec.domain == "waveform":
            given = g.embed(part.model, {"mix": mix}, prefix)
            return self._rows(given["stems"], rows)
        assert spec.stft is not None
        real, imag = self.parts(spec.stft)
        frames = frame_count(spec.stft, self.samples)
        spectrum = channels_of(g.scope(prefix), real, imag, channels, spec.stft.bins, frames)
        if spec.normalization.kind == "spectrum":
            count = 2 * channels * spec.stft.bins * frames
            mean, deviation = _statistics(g, spectrum, count, spec.normalization)
            spectrum = g.div(g.sub(spectrum, mean), deviation)
        feeds = {"spectrum": spectrum, **({"mix": mix} if spec.domain == "hybrid" else {})}
        given = g.embed(part.model, feeds, prefix)
        g.scope(f"{prefix}/out")
        spectra = self._rows(given["masks" if "masks" in given else "stem_spectra"], rows)
        made = len(rows) * channels
        frames_back = _dimension(part.model, "masks" if "masks" in given else "stem_spectra", frames)
        re, im = parts_of(g, spectra, (made, 2, spec.stft.bins, frames_back))
        if spec.output in ("masks", "part_masks"):
            re, im = self._masked(spec, re, im, (len(rows), channels, spec.stft.bins, frames))
        wave = istft_nodes(g, re, im, spec.inverse or spec.stft, made, frames_back, self.samples)
        wave = g.reshape(wave, len(rows), channels, self.samples)
        return g.add(wave, self._rows(given["stems"], rows)) if spec.domain == "hybrid" else wave

    def _rows(self, value: str, rows: Sequence[int]) -> str:
        """Of [1, S, ...] the stems ``rows``: [rows, ...]."""
        return self.g.op("Gather", self.g.op("Squeeze", value, self.g.ints(0)), self.g.ints(*rows), axis=0)

    def _masked(self, spec: ModelSpec, re: str, im: str, shape: tuple[int, int, int, int]) -> tuple[str, str]:
        """Masks [rows * C, F, T] times the mixture's spectrum."""
        g, (rows, channels, bins, frames) = self.g, shape
        assert spec.stft is not None
        real, imag = self.parts(spec.stft)
        apart = [g.reshape(part, rows, channels, bins, frames) for part in (re, im)]
        if spec.output == "part_masks":
            made = [g.mul(apart[0], real), g.mul(apart[1], imag)]
        else:
            made = [
                g.sub(g.mul(apart[0], real), g.mul(apart[1], imag)),
                g.add(g.mul(apart[0], imag), g.mul(apart[1], real)),
            ]
        re, im = (g.reshape(part, rows * channels, bins, frames) for part in made)
        return re, im

    def magnitude(self, parts: Sequence[Part]) -> str:
        """Estimates of magnitude graphs, made masks by the model's filter, times the mixture's spectrum: [S, C, N]."""
        g, spec = self.g, self.spec
        assert spec.stft is not None and spec.filter is not None and spec.blocks is not None
        filtering = spec.filter
        simple = filtering.method == "ratio" or (filtering.method == "mask" and spec.output == "masks")
        if not simple or filtering.alpha > 0 or filtering.above != "zeros":
            raise ModelError(
                f"{spec.name} filters its stems in a way that no graph here holds; export it with the STFT outside"
            )
        real, imag = self.parts(replace(spec.stft, zero_before=0))
        frames, bins, channels = frame_count(spec.stft, self.samples), spec.stft.bins, spec.channels
        magnitude = g.op("Sqrt", g.add(g.mul(real, real), g.mul(imag, imag)))
        if spec.stft.zero_before:
            magnitude = g.mul(magnitude, g.const((np.arange(bins) >= spec.stft.zero_before).astype(float)[:, None]))
        magnitude = g.reshape(magnitude, 1, channels, bins, frames)
        missing = spec.blocks.frames - frames if spec.blocks.padded else 0
        fed = g.op("Pad", magnitude, g.ints(0, 0, 0, 0, 0, 0, 0, missing)) if missing else magnitude
        estimates: list[str] = [""] * len(spec.stems)
        for k, part in enumerate(parts):
            given = g.embed(part.model, {"magnitude": fed}, f"graph{k}")
            (output,) = given.values()
            for row, s in enumerate(part.member.rows):
                if part.member.weights[s] > 0:
                    estimates[s] = g.slice(output, 1, row, row + 1)
        count = len(estimates)
        v = g.reshape(g.slice(g.concat(estimates, 1), 4, 0, frames), count, channels, bins, frames)
        masks = v
        if spec.output == "masks" and filtering.method == "ratio":
            v = g.mul(v, magnitude)
        if filtering.method == "ratio":
            power = g.op("Pow", v, g.const(np.float32(filtering.exponent)))
            total = g.add(g.op("ReduceSum", power, g.ints(0), keepdims=1), g.const(np.float32(filtering.eps)))
            masks = g.div(g.add(power, g.const(np.float32(filtering.eps / count))), total)
        re, im = (g.reshape(g.mul(masks, part), count * channels, bins, frames) for part in (real, imag))
        wave = istft_nodes(g, re, im, spec.inverse or spec.stft, count * channels, frames, self.samples)
        return g.reshape(wave, count, channels, self.samples)


def _dimension(model: onnx.ModelProto, name: str, default: int) -> int:
    """The last dimension of an output, which a graph with another inverse may lengthen."""
    shapes: Mapping[str, int] = {v.name: v.type.tensor_type.shape.dim[-1].dim_value for v in model.graph.output}
    return shapes[name] or default
