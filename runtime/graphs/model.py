"""From what the user typed to a model that can run: its spec, its files, the names of its stems."""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from ortsep.base.errors import FileMissing, ModelError
from ortsep.base.paths import exists, is_folder
from ortsep.graphs.library import file_by_key, find_checkpoint
from ortsep.graphs.recognised import foreign_folder
from ortsep.models.catalogue import (
    BUNDLED,
    CHECKPOINTS,
    card_named,
    catalogue,
    folder_name,
    is_model_path,
    model_homes,
)
from ortsep.models.contracts.plain import RATE as PLAIN_RATE
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, Member, ModelSpec, from_json
from ortsep.stems.manifest import FILE_NAME as MANIFEST
from ortsep.stems.manifest import read_manifest


@dataclass(frozen=True)
class Model:
    """A model on disk. ``members`` are the graphs with the stems' weights; one of weight 1 for a model of one graph."""

    spec: ModelSpec
    folder: Path
    members: tuple[Member, ...]
    described: bool = True
    """False for a file without a spec of ours, which was recognised by its tensors."""

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
    if is_model_path(path):
        return path
    name = str(reference).removesuffix(".onnx")
    if path.suffix == ".onnx" and path.parent.name == path.stem and path.parent.is_dir():
        return path.parent
    if path.parent == Path() and (found := _named(name)) is not None:
        return found
    if is_folder(path):
        raise FileMissing(f"{path} holds no .onnx file; name a model file, or an exported folder")
    if exists(path):
        if path.suffix.lower() in CHECKPOINTS:
            raise FileMissing(f"{path} is a checkpoint, which runs when it is exported; run: ortsep export {path}")
        return path
    near = get_close_matches(name, [n for card in catalogue().values() for n in (card.name, *card.aliases)], n=1)
    hint = f"did you mean {near[0]}?" if near else "ortsep models lists what there is"
    raise FileMissing(
        f"there is no model {reference!s}: neither a .onnx file, nor an exported folder, nor a name in the "
        f"catalogue; {hint}"
    )


def _named(name: str) -> Path | None:
    """The model of this name or alias in the homes of models: a folder, a file called so, or one with the key of the
    card's. Raises FileMissing where it can be exported."""
    card, homes = card_named(name), model_homes()
    for home in (*homes, BUNDLED):
        for folder in {folder_name(card.name if card else name), folder_name(name)}:
            if is_model_path(home / folder):
                return home / folder
        inner = list(home.iterdir()) if home.is_dir() else []
        for place in (home, *inner):
            if is_model_path(place / f"{name}.onnx"):
                return place / f"{name}.onnx"
    if card is not None and (file := file_by_key(card, homes)) is not None:
        return file
    weights = find_checkpoint(name, homes)
    if card is not None:
        given = f" --weights {weights}" if weights else ""
        raise FileMissing(f"{card.name} is not exported yet; run: ortsep export {card.name}{given}")
    if weights is not None:
        raise FileMissing(f"{weights} is a checkpoint, which runs when it is exported; run: ortsep export {weights}")
    return None


def is_ready(reference: str) -> bool:
    """Whether ``find_model`` finds it."""
    try:
        return is_model_path(find_model(reference))
    except FileMissing:
        return False


def load_model(reference: str | Path, sample_rate: int = PLAIN_RATE) -> Model:
    """Read a model's spec and stems.txt, or recognise a file that carries none. Loads no graph.

    ``sample_rate`` is assumed of a plain waveform graph. Raises FileMissing and ModelError.
    """
    path = find_model(reference)
    folder = path if path.is_dir() else path.parent
    graphs = _graphs(path) if path.is_dir() else [path]
    described = [graph for graph in graphs if METADATA_KEY in read_metadata(graph)]
    if described:
        file = described[0]
        spec = from_json(read_metadata(file)[METADATA_KEY], str(file))
    else:
        file, spec = foreign_folder(folder, graphs, sample_rate)
    everything = (1.0,) * len(spec.stems)
    members = spec.bag or (Member(file.name, everything, spec.given),)
    if (folder / MANIFEST).exists():
        spec = spec.renamed(read_manifest(folder / MANIFEST, len(spec.names)))
    if not path.is_dir() and spec.bag and not _inseparable(spec):
        return replace(_one_member(spec, folder, file), described=bool(described))
    missing = [m.file for m in members if not (folder / m.file).exists()]
    if missing:
        mend = f"export {spec.name} again" if described else "put them back, or adopt what is there again"
        raise FileMissing(f"{folder} lacks {', '.join(missing)} of its {len(members)} graphs; {mend}")
    return Model(spec, folder, members, described=bool(described))


def _inseparable(spec: ModelSpec) -> bool:
    """Whether each stem needs all graphs of the bag: their estimates share the mixture out."""
    return spec.filter is not None and spec.filter.method == "ratio"


def _graphs(folder: Path) -> list[Path]:
    graphs = sorted(folder.glob("*.onnx"))
    if not graphs:
        raise FileMissing(f"{folder} holds no .onnx file; name a model file, or an exported folder")
    return graphs


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
