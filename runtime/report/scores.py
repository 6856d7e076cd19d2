"""Drawing what ``ortsep score`` found, with matplotlib (extra ``report``): a panel a figure, a row a stem."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ortsep.base.errors import UsageError
from ortsep.report.pictures import require_matplotlib

KINDS = ("png", "svg", "pdf")
PANELS = {"sdr": "SDR, dB", "frames_sdr": "SDR of seconds, dB", "bleedless": "bleedless", "fullness": "fullness"}
_GREY = "#8a8a8a"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which the colour-blind tell apart."""


def check_picture(path: Path) -> None:
    """Raise UsageError for a kind of file that is not drawn, MissingDependency without matplotlib."""
    if path.suffix.lower().lstrip(".") not in KINDS:
        raise UsageError(f"{path} would be no picture; end its name with .{', .'.join(KINDS)}")
    require_matplotlib()


def draw_scores(document: Mapping[str, Any], kind: str) -> bytes:
    """The picture of ``Scores.document()`` as a file of ``kind``: the median of each, and faintly every song."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    median, models = document["median"], document["models"]
    stems = list(median)
    looks = _looks(models, next(iter(median.values())))
    figure = Figure(figsize=(11, 1.4 + len(stems) * (0.3 + 0.14 * len(looks))), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (key, title) in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS.items(), strict=True):
        for row, stem in enumerate(stems):
            for place, (name, look) in enumerate(looks.items()):
                y = row + 0.7 * ((place + 0.5) / len(looks) - 0.5)
                songs = [song["stems"].get(stem, {}).get(name, {}).get(key) for song in document["songs"]]
                known = [value for value in songs if value is not None]
                if known:
                    axes.plot(known, [y] * len(known), ".", color=look["color"], alpha=0.25, markersize=4)
                    label = name if row == 0 else None
                    axes.plot([median[stem][name][key]], [y], linestyle="", markersize=7, label=label, **look)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.set_yticks(range(len(stems)), stems)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].invert_yaxis()
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, len(handles)), fontsize=9)
    data = io.BytesIO()
    stamp = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(data, format=kind, dpi=120, metadata=stamp)
    return data.getvalue()


def _looks(models: Sequence[str], estimates: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """How each estimate is drawn: the models in colours, the floor, which is first, and the ceiling grey."""
    floor, *_, ceiling = estimates
    looks: dict[str, dict[str, Any]] = {floor: {"marker": "<", "color": _GREY}}
    for number, name in enumerate(models):
        marker = "oDs^vP"[number // len(_COLOURS) % 6]
        looks[name] = {"marker": marker, "color": _COLOURS[number % len(_COLOURS)]}
    return {**looks, ceiling: {"marker": ">", "color": _GREY}}
