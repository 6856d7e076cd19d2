"""``ortsep doctor MODEL --tune``: the fastest setting for a model here, tried, told and kept."""

import json
from dataclasses import asdict

from ortsep import __version__
from ortsep.base.decibels import in_words
from ortsep.base.errors import UsageError
from ortsep.commands.terminal import screen
from ortsep.graphs.providers import runtime_packages
from ortsep.graphs.tuned import Setting
from ortsep.measure.tune import Tuned, tune


def tune_command(reference: str | None, *, budget: float, as_json: bool) -> int:
    """Try providers, threads and memory on a model for about ``budget`` seconds; keep the fastest, and say the gain."""
    if reference is None:
        raise UsageError("--tune needs a model to try; name one: ortsep doctor MODEL --tune")
    told = tune(reference, budget=budget, doing=screen.doing)
    screen.clear()
    if as_json:
        print(json.dumps({"version": __version__, "packages": runtime_packages(), **asdict(told)}))
    else:
        print("\n".join(described(told)))
    return 0


def described(told: Tuned) -> list[str]:
    """The same in words: a line for each setting, and what ``auto`` means from now on."""
    found, name = told.found, told.model
    own = f"{found.seconds:.3g} s for {told.sound:.1f} s of noise"
    lines = [f"{'ortsep itself':<28} {'':>6}                 {own}"]
    for each in found.tried:
        ratio = "-" if each.ratio is None else f"{each.ratio:.2f}"
        equal = "" if each.snr_db is None else in_words(each.snr_db, 0)
        lines.append(f"{each.setting!s:<28} {ratio:>6}  {equal:>13}  {each.reason or 'is faster'}")
    if found.best == Setting():
        lines += ["", f"auto means {found.best} for {name}: nothing that keeps {told.gate:.0f} dB is faster here"]
    else:
        lines += [
            "",
            f"auto means {found.best} for {name} from now on: {found.ratio:.2f} of the time that ortsep's own setting "
            f"takes, equal to it ({in_words(found.snr_db, 0)}, {told.gate:.0f} dB are asked)",
        ]
    if found.untried:
        missing = "; ".join(str(setting) for setting in found.untried)
        lines.append(f"there was no time to try {missing}: --budget gives more")
    if not told.kept:
        lines.append("the cache can't be written, so this is not kept; name a folder in ORTSEP_CACHE")
    return [*lines, *told.notes]
