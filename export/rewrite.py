"""``ortsep adopt --rewrite``: a recognised file as ortsep's own, with our tensors and its spec inside, proven equal."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from ortsep import __version__
from ortsep.base.decibels import in_words, snr
from ortsep.base.errors import ModelError, UsageError
from ortsep.base.whole import whole_folder
from ortsep.export.graph.builder import foreign_domains
from ortsep.export.graph.files import attach_spec, parameter_count, save_model
from ortsep.export.graph.rename import with_our_tensors
from ortsep.export.passes import optimize
from ortsep.graphs.adopt import Adopted
from ortsep.graphs.foreign import Foreign
from ortsep.graphs.recognised import recognised, with_members
from ortsep.graphs.session import Session
from ortsep.models.contracts.contract import Wishes
from ortsep.models.spec import Figure, Member, ModelSpec, Tensors
from ortsep.stems.manifest import FILE_NAME as MANIFEST
from ortsep.stems.manifest import write_manifest

GATE = 90.0
"""dB that the rewritten graph must keep of the given one, in float32 both."""
Say = Callable[[str], None]


def rewrite(path: Path, output: Path, wishes: Wishes | None = None, *, say: Say = lambda _: None) -> Adopted:
    """Write a recognised file, with all files of its bag, into the folder ``output`` as ortsep's own.

    Raises FileMissing, ModelError for a file that is not recognised or whose rewriting is not equal to it, OutputError.
    """
    made = recognised(path, wishes)
    given = with_members(made.spec, path.name)
    if output.exists() and (not output.is_dir() or path.parent.resolve() == output.resolve()):
        raise UsageError(f"{output} is a file or the folder of {path.name} itself; choose another with -o")
    spec = replace(given, tensors=Tensors(), bag=given.bag if len(given.bag) > 1 else ())
    with whole_folder(output, "choose another with -o", stale="*.onnx") as working:
        for member in given.bag:
            spec = _one(path.parent / member.file, working / member.file, given, member, spec, say)
        write_manifest(working / MANIFEST, spec.names)
    return Adopted(output, made.contract, made.title, spec)


def _one(source: Path, target: Path, given: ModelSpec, member: Member, spec: ModelSpec, say: Say) -> ModelSpec:
    """Write one graph and prove it equal to its source; the spec that it carries."""
    model = with_our_tensors(onnx.load(str(source)), given)
    model, _ = optimize(model)
    save_model(model, target)
    db = compare(source, target, given, len(member.rows))
    if not db >= GATE:
        raise ModelError(
            f"{source} was not written anew: the result keeps {db:.1f} dB of it, below {GATE:g}; report it"
        )
    say(f"{source.name}: {len(model.graph.node)} nodes, {in_words(db)} against the given file (gate {GATE:g})")
    domains = foreign_domains(model.graph.node)
    own = replace(
        spec,
        exporter=f"ortsep {__version__}",
        parameters=spec.parameters or parameter_count(model),
        portable=not domains,
        validation=(Figure(f"rewrite: {source.name}, noise", db, GATE, "given graph, float32"),),
    )
    save_model(attach_spec(model, own), target)
    return own


def compare(source: Path, target: Path, spec: ModelSpec, rows: int) -> float:
    """The lowest SNR in dB of the outputs of ``target`` against those of ``source``, on seeded noise."""
    theirs = Foreign(source, spec, rows, provider="cpu")
    ours = Session(target, provider="cpu")
    rng = np.random.default_rng(0)
    feeds = {}
    for tensor in theirs.inputs:
        shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
        feeds[tensor.name] = (rng.standard_normal(shape) * 0.3).astype(np.float32)
    names = [tensor.name for tensor in theirs.outputs]
    pairs = zip(theirs.run(feeds, names), ours.run(feeds, names), strict=True)
    return min(snr(reference, result) for reference, result in pairs)
