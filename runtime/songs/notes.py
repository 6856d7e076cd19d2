"""What is said of a separation beside its figures: of the provider, the level, the rate, the model, the shifts."""

from ortsep.audio.heard import SAME
from ortsep.audio.song import Song
from ortsep.chain import Chain
from ortsep.models.spec import ModelSpec
from ortsep.options import Options
from ortsep.separator import Separator


def notes(
    separator: Separator | Chain, options: Options, song: Song, gain: float, cut: int, *, music: bool = False
) -> list[str]:
    """Sentences for the report. ``gain`` (linear) went to all stems, ``cut`` samples were beyond full scale.

    ``music``: it was said already that the model knows drums alone and this is other music.
    """
    spec, found = separator.spec, []
    if separator.provider_reason:
        found.append(separator.provider_reason)
    if spec.weights.random:
        found.append("the model has random weights: its stems are noise")
    if gain != 1.0:
        found.append(f"all stems were scaled by {gain:.4g} to fit the format; write float wav to keep the level")
    if cut:
        found.append(f"{cut} samples lie beyond full scale and were cut; --clip-mode rescale keeps their shape")
    if song.sample_rate != spec.sample_rate:
        found.append(f"resampled from {song.sample_rate} Hz to the model's {spec.sample_rate} Hz and back")
    found.extend(of_shifts(model.spec, options) for model in separator.models)
    found.extend(note for note in spec.notes if not (music and note.startswith(SAME)))
    return [note for note in found if note]


def of_shifts(spec: ModelSpec, options: Options) -> str:
    """Where shifts may be others than Demucs draws with ``random.seed(seed)``; empty where they are the same.

    ``demucs.apply.apply_model`` draws for every model of a bag anew, and HTDemucs's forward pass draws from the same
    generator (``CrossTransformerEncoder._get_pos_embedding``), once a chunk, so that shifts after the first differ.
    """
    if not options.shifts or spec.chunks is None or not spec.chunks.max_shift:
        return ""
    bag = len(spec.bag) > 1
    if options.shifts < 2 and not bag:
        return ""
    first = "the first model's first shift is" if bag else "the first shift is"
    return (
        f"{first} the one that Demucs draws with random.seed({options.seed}); the others may differ from Demucs's, "
        "which draws more from the same generator in between"
    )
