"""From what can be read of a file without loading it to its spec, or to the reasons why there is none.

Contracts whose files share shapes are told apart by the order, names and rank of the tensors. Where these leave more
than one contract, or a contract leaves something open that no table says, the answer is a reason that names the
candidates and the flag that decides: nothing is guessed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ortsep.base.errors import ModelError
from ortsep.models.contracts import demucs
from ortsep.models.contracts.contract import Contract, File, Found, Unclear, Wishes
from ortsep.models.contracts.mdx_net import MDX_NET
from ortsep.models.contracts.plain import NAMED, PLAIN
from ortsep.models.contracts.roformer import ROFORMER
from ortsep.models.contracts.spleeter import SPLEETER
from ortsep.models.spec import ModelSpec

CONTRACTS: tuple[Contract, ...] = (MDX_NET, SPLEETER, *demucs.CONTRACTS, ROFORMER, NAMED, PLAIN)
"""In the order in which errors list them; the last, which any waveform graph fits, only where no other does."""


@dataclass(frozen=True)
class Recognised:
    """A file of a known contract, and the spec that it is run by."""

    contract: str
    title: str
    spec: ModelSpec


@dataclass(frozen=True)
class Unknown:
    """A file of no known contract, or one that leaves something open: why not, each a clause of a sentence."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.reasons)


def recognise(file: File, wishes: Wishes = Wishes()) -> Recognised | Unknown:  # noqa: B008 a frozen constant
    """The spec of a file, with its stems called as ``wishes`` has it, or the reasons why there is none."""
    if wishes.contract:
        return _as_wished(file, wishes)
    fitting = [(c, sizes) for c in CONTRACTS if (sizes := c.measure(file.signature)) is not None]
    if len(fitting) > 1:
        fitting = [(c, sizes) for c, sizes in fitting if c is not PLAIN]
    if not fitting:
        return Unknown(_nearest(file))
    if len(fitting) > 1:
        names = " or ".join(c.name for c, _ in fitting)
        return Unknown((f"its tensors are those of {names}: say which with --as",))
    contract, sizes = fitting[0]
    return _described(contract, Found(file, sizes, contract.tensors(file.signature), wishes))


def _as_wished(file: File, wishes: Wishes) -> Recognised | Unknown:
    contract = next((c for c in CONTRACTS if c.name == wishes.contract), None)
    if contract is None:
        return Unknown((f"there is no contract {wishes.contract}: --as takes {', '.join(c.name for c in CONTRACTS)}",))
    sizes = contract.measure(file.signature, names=False)
    if sizes is None:
        return Unknown((f"it has {file.signature}, where {contract}",))
    return _described(contract, Found(file, sizes, contract.tensors(file.signature), wishes))


def _described(contract: Contract, found: Found) -> Recognised | Unknown:
    foreign = sorted(found.wishes.settings.keys() - set(contract.settings))
    if foreign:
        known = f"--set takes {', '.join(contract.settings)}" if contract.settings else "it has nothing to --set"
        return Unknown((f"{', '.join(foreign)} means nothing to {contract.title}: {known}",))
    try:
        spec = contract.describe(found)
        stems = found.wishes.stems
        if stems in ((), spec.stems):
            return Recognised(contract.name, contract.title, spec)
        if len(stems) != len(spec.names):
            return Unknown((f"stems.txt or --stems names {len(stems)} stems where it gives {len(spec.names)}",))
        return Recognised(contract.name, contract.title, spec.renamed(stems))
    except Unclear as why:
        return Unknown((f"it is {contract.title}, but {why}",))
    except ModelError as why:
        return Unknown((f"it looks like {contract.title}, but {why}",))


def _nearest(file: File) -> tuple[str, ...]:
    """What the file has, and what the contracts want that come nearest."""
    ranked = sorted(CONTRACTS, key=lambda c: -c.nearness(file.signature))
    best = ranked[0].nearness(file.signature)
    near = [c for c in ranked[:3] if c.nearness(file.signature) >= best - 1]
    return (
        f"its tensors {file.signature} are those of no file that ortsep knows",
        "the nearest are " + "; ".join(map(str, near)),
    )


def together(files: Iterable[tuple[str, Recognised]]) -> ModelSpec | None:
    """The four specialists of an htdemucs_ft as one model, from their file names and what each is; None for others."""
    parts = [(name, made.spec) for name, made in files]
    order = demucs.STEMS[:4]
    ours = {spec.stems[0]: (name, spec) for name, spec in parts if demucs.specialist(spec.name)}
    if len(parts) != len(order) or set(ours) != set(order):
        return None
    return demucs.bagged(tuple(ours[stem][1] for stem in order), tuple(ours[stem][0] for stem in order))
