"""What a run would allocate, by its plan alone: a spec inside its bounds may still ask for more than there is.

Counted are the arrays of a step of the run, which are alive together: what is read, its spectrum, what the graphs give,
and the sum that chunks are added to. What a graph needs inside is not known, so this is the least.
"""

from ortsep.base.errors import ModelError
from ortsep.base.memory import available
from ortsep.engine.plan import BandRun, ChunkRun, FrameRun, Run
from ortsep.engine.stft import frame_count
from ortsep.models.spec import ModelSpec, Stepped


def needed(spec: ModelSpec, run: Run) -> int:
    """Bytes that the run takes at least at a time."""
    if isinstance(run, BandRun):
        return 4 * _of_bands(spec, run)
    return 4 * (_of_frames(spec, run) if isinstance(run, FrameRun) else _of_chunks(spec, run))


def _of_chunks(spec: ModelSpec, run: ChunkRun) -> int:
    """Numbers of four bytes."""
    length, takes = run.plan.segment, run.chunks.takes
    if isinstance(takes, Stepped):
        length = max(length, takes.least) + takes.step
    channels, stems = spec.channels, len(run.rows)
    waves = channels * length * (1 + 2 * stems)  # what is read, what comes out, and what it is added to
    weights = 4 * length
    border = channels * (run.plan.before + run.plan.after) if run.chunks.border.fill == "reflect" else 0
    spectra = 0
    if spec.stft is not None:
        frames = frame_count(spec.stft, length)
        spectra = 2 * channels * frames * (spec.stft.n_fft // 2 + 1 + spec.stft.bins * (1 + stems))
    return waves + weights + border + spectra * len(run.variants)


def _of_frames(spec: ModelSpec, run: FrameRun) -> int:
    """Numbers of four bytes."""
    assert spec.stft is not None
    grouping, channels = run.grouping, spec.channels
    size = run.block if run.parts else grouping.frames * grouping.batch
    frames = run.frames if run.whole else min(size, run.frames)
    if grouping.padded and not run.whole:
        frames = -(-frames // grouping.frames) * grouping.frames
    if run.filtering.method == "wiener":
        frames = max(frames, min(run.filtering.window, run.frames))
    mixture = 2 * channels * frames * (spec.stft.n_fft // 2 + 1)
    return mixture + channels * frames * spec.stft.bins * (1 + len(run.estimated))


def _of_bands(spec: ModelSpec, run: BandRun) -> int:
    """Numbers of four bytes."""
    assert spec.bands is not None
    frames = spec.channels * spec.bands.bins
    return frames * (3 * run.window + run.counted * (1 + 2 * len(run.rows)))


def refuse_larger_than_memory(spec: ModelSpec, run: Run) -> None:
    """Raise ModelError for a run that needs more memory than there is now."""
    need, there = needed(spec, run), available()
    if there is not None and need > there:
        raise ModelError(
            f"{spec.name} would need at least {need / 1e9:.1f} GB for this song and there are {there / 1e9:.1f} GB; "
            "ask for fewer stems or shorter chunks (--chunk), or take another model or machine"
        )
