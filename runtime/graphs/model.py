"""From what the user typed to a model that can run: its spec, its files, the names of its stems."""

from dataclasses import dataclass, replace
from pathlib import Path

from ortsep.base.errors import FileMissing, ModelError
from ortsep.graphs.session import Session
from ortsep.models.catalogue import BUNDLED, catalogue, exported_home, folder_name
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, Chunks, Fixed, Free, Member, ModelSpec, from_json
from ortsep.stems.manifest import FILE_NAME as MANIFEST
from ortsep.stems.manifest import read_manifest

PLAIN_RATE = 44100
"""Sample rate assumed of a waveform graph that carries no spec."""
PLAIN_CHUNK = 10 * PLAIN_RATE
"""Chunk of a plain graph of free length, in samples."""


@dataclass(frozen=True)
class Model:
    """A model on disk. ``members`` are the graphs with the stems' weights; one of weight 1 for a model of one graph."""

    spec: ModelSpec
    folder: Path
    members: tuple[Member, ...]
    described: bool = True
    """False for a plain waveform graph, whose spec is inferred from its shapes."""

    @property
    def stems(self) -> tuple[str, ...]:
        return self.spec.names

    def file(self, member: Member) -> Path:
        return self.folder / member.file

    def size(self) -> int:
        """Bytes of all graphs."""
        return sum(self.file(m).stat().st_size for m in self.members)


def find_model(reference: str | Path) -> Path:
    """The .onnx file or exported folder that ``reference`` names: a path, or the name of an exported model.

    Raises FileMissing with the way to export it.
    """
    path = Path(reference)
    if path.exists():
        return path
    name = str(reference).removesuffix(".onnx")
    if path.suffix == ".onnx" and path.parent.name == path.stem and path.parent.is_dir():
        return path.parent
    if path.parent == Path():
        cards = catalogue()
        card = next((c for c in cards.values() if name == c.name or name in c.aliases), None)
        for home in (exported_home(), BUNDLED):
            for folder in {folder_name(card.name if card else name), folder_name(name)}:
                if (home / folder).is_dir():
                    return home / folder
        if card is not None:
            raise FileMissing(f"{card.name} is not exported yet; run: ortsep export {card.name}")
    raise FileMissing(
        f"there is no model {reference!s}: neither a .onnx file, nor an exported folder, nor a name in the catalogue; "
        "ortsep models lists what there is"
    )


def load_model(reference: str | Path, sample_rate: int = PLAIN_RATE) -> Model:
    """Read a model's spec and stems.txt. Loads no graph, except one without a spec, for its shapes.

    ``sample_rate`` is assumed of a plain waveform graph. Raises FileMissing and ModelError.
    """
    path = find_model(reference)
    folder = path if path.is_dir() else path.parent
    file = _first_graph(path) if path.is_dir() else path
    text = read_metadata(file).get(METADATA_KEY)
    if text is None:
        return _plain(file, sample_rate)
    spec = from_json(text, str(file))
    everything = (1.0,) * len(spec.stems)
    members = spec.bag or (Member(file.name, everything, tuple(range(len(spec.stems)))),)
    if (folder / MANIFEST).exists():
        spec = spec.renamed(read_manifest(folder / MANIFEST, len(spec.names)))
    if path.is_dir():
        missing = [m.file for m in members if not (folder / m.file).exists()]
        if missing:
            raise FileMissing(
                f"{folder} lacks {', '.join(missing)} of its {len(members)} graphs; export {spec.name} again"
            )
    elif spec.bag:
        return _one_member(spec, folder, file)
    return Model(spec, folder, members)


def _first_graph(folder: Path) -> Path:
    graphs = sorted(folder.glob("*.onnx"))
    if not graphs:
        raise FileMissing(f"{folder} holds no .onnx file; name a model file, or an exported folder")
    described = [g for g in graphs if METADATA_KEY in read_metadata(g)]
    if len(graphs) > 1 and not described:
        raise ModelError(f"{folder} holds {len(graphs)} graphs without a spec; name the one to run")
    return (described or graphs)[0]


def _one_member(spec: ModelSpec, folder: Path, file: Path) -> Model:
    """A file of a bag, named by itself: a model of the stems that it is for."""
    member = next((m for m in spec.bag if m.file == file.name), None)
    if member is None:
        files = ", ".join(m.file for m in spec.bag)
        raise ModelError(f"{file} was renamed: it is one of the graphs {files} of {spec.name}; give it its name back")
    keep = [s for s, weight in enumerate(member.weights) if weight > 0]
    place = {s: i for i, s in enumerate(keep)}
    rows = tuple(place.get(r, -1) for r in member.rows)
    alone = Member(member.file, (1.0,) * len(keep), rows)
    names = tuple(spec.stems[s] for s in keep)
    gains = tuple(spec.gains[s] for s in keep if spec.gains)
    derived = tuple(d for d in spec.derived if set(d.minus) <= set(names))
    return Model(replace(spec, stems=names, gains=gains, derived=derived, bag=()), folder, (alone,))


def _plain(file: Path, sample_rate: int) -> Model:
    """A waveform graph with nothing but a stems.txt: [B, C, N] in, [B, S, C, N] out."""
    manifest = file.parent / MANIFEST
    if not manifest.exists():
        raise ModelError(
            f"{file} carries no ortsep spec and has no {MANIFEST} beside it; write one with a stem name per line, "
            "in the order of the graph's output"
        )
    session = Session(file, provider="cpu")
    if len(session.inputs) != 1 or len(session.outputs) != 1:
        raise ModelError(
            f"{file} carries no ortsep spec and has {len(session.inputs)} inputs and {len(session.outputs)} outputs, "
            "where a plain waveform graph has one of each; see models/README.md"
        )
    given, made = session.inputs[0].shape, session.outputs[0].shape
    if len(given) != 3 or len(made) != 4:
        raise ModelError(
            f"{file} maps {list(given)} to {list(made)}, where a plain waveform graph maps [batch, channels, samples] "
            "to [batch, stems, channels, samples]; see models/README.md"
        )
    names = read_manifest(manifest, made[1] if isinstance(made[1], int) else None)
    length = given[2] if isinstance(given[2], int) else None
    channels = next((d for d in (given[1], made[2]) if isinstance(d, int)), 2)
    spec = ModelSpec(
        name=file.stem,
        family="plain",
        stems=names,
        sample_rate=sample_rate,
        channels=channels,
        domain="waveform",
        output="stems",
        chunks=Chunks(length=length or PLAIN_CHUNK, takes=Fixed() if length else Free(whole=PLAIN_CHUNK)),
        notes=(f"no spec in the file: {sample_rate} Hz assumed",),
    )
    member = Member(file.name, (1.0,) * len(names), tuple(range(len(names))))
    return Model(spec, file.parent, (member,), described=False)
