"""Which SCNet a configuration describes, and whether a checkpoint is that one."""

from collections.abc import Mapping
from typing import Any

from ortsep.base.errors import WeightsError
from ortsep.export.families.scnet.architecture import BANDS, Architecture, parameters
from ortsep.export.weights.frontdoor import Checkpoint, check_names
from ortsep.export.weights.msst_yaml import Settings

DEFAULTS: Mapping[str, Any] = vars(Architecture())
"""Of the original's constructor, for what a yaml leaves out."""


def read_architecture(checkpoint: Checkpoint) -> Architecture:
    """The architecture of a recognised checkpoint. Raises WeightsError for one that its configuration doesn't fit."""
    where = checkpoint.where
    if not checkpoint.settings.model:
        raise WeightsError(
            f"nothing says how the bands of {where} are cut; give the yaml that came with it with --config"
        )
    arch = described(checkpoint.settings, where)
    check_names(checkpoint, parameters(arch))
    return arch


def described(settings: Settings, where: str) -> Architecture:
    """The architecture that a configuration describes. Raises WeightsError for what can't be."""
    model = settings.model
    read = _Reader(model, where)
    sources = model.get("sources", ("drums", "bass", "other", "vocals"))
    if not isinstance(sources, list | tuple) or not 1 <= len(sources) <= 64:
        raise WeightsError(f"the yaml of {where} has sources {str(sources)[:40]}, which are no list of stems; mend it")
    if (channels := model.get("audio_channels", 2)) != 2:
        raise WeightsError(
            f"the yaml of {where} has audio_channels {channels}, and ortsep takes SCNets of two; mend it"
        )
    arch = Architecture(
        sources=len(sources),
        dims=read.numbers("dims", 1 << 12, 2, 9),
        band_SR=read.shares("band_SR"),
        band_stride=read.numbers("band_stride", 256, BANDS, BANDS),
        band_kernel=read.numbers("band_kernel", 256, BANDS, BANDS),
        conv_depths=read.numbers("conv_depths", 16, BANDS, BANDS),
        compress=read.number("compress", 256),
        conv_kernel=read.number("conv_kernel", 63),
        num_dplayer=read.number("num_dplayer", 48),
        expand=read.number("expand", 16),
        nfft=read.number("nfft", 1 << 15),
        hop_size=read.number("hop_size", 1 << 15),
        normalized=model.get("normalized", True) is True,
        chunk=settings.chunk or DEFAULTS["chunk"],
    )
    _check(arch, model.get("win_size", 4096), where)
    return arch


def _check(a: Architecture, window: object, where: str) -> None:
    """Refuse what the network can't run."""
    wrong = {
        f"win_size {window} with nfft {a.nfft}": window != a.nfft,
        f"hop_size {a.hop_size} with nfft {a.nfft}": not a.hop_size <= a.nfft <= 64 * a.hop_size or a.nfft % 2 == 1,
        f"chunks of {a.chunk} samples with nfft {a.nfft}": a.chunk <= a.nfft // 2,
        f"dims that begin with {a.dims[0]}, not 4": a.dims[0] != 4,
        f"an odd number of dual-path layers ({a.num_dplayer})": a.num_dplayer % 2 == 1,
        f"an even conv_kernel ({a.conv_kernel})": a.conv_kernel % 2 == 0,
        f"compress {a.compress} with dims {a.dims}": min(a.hidden(c) for c in a.dims[1:]) < 1,
        f"band_SR {a.band_SR}": not (a.band_SR[0] > 0 and a.band_SR[1] > 0 and sum(a.band_SR[:2]) < 1),
    }
    for what, there in wrong.items():
        if there:
            raise WeightsError(f"the yaml of {where} has {what}, which can't be; give the one that came with it")
    if not all(band.rows >= 1 and band.grown >= band.stop - band.start for level in a.levels() for band in level):
        raise WeightsError(
            f"the yaml of {where} cuts bands that its kernels {a.band_kernel} and strides {a.band_stride} don't fit; "
            "give the one that came with it"
        )


class _Reader:
    """Values of the model's section, checked one by one."""

    def __init__(self, model: Mapping[str, Any], where: str) -> None:
        self.model, self.where = model, where

    def _wrong(self, name: str, wanted: str) -> WeightsError:
        return WeightsError(f"the yaml of {self.where} has {name} {str(self.model[name])[:40]}, not {wanted}; mend it")

    def number(self, name: str, most: int) -> int:
        value = self.model.get(name, DEFAULTS[name])
        if type(value) is not int or not 1 <= value <= most:
            raise self._wrong(name, f"a number from 1 to {most}")
        return value

    def numbers(self, name: str, most: int, least: int, longest: int) -> tuple[int, ...]:
        values = self.model.get(name, DEFAULTS[name])
        fits = isinstance(values, list | tuple) and least <= len(values) <= longest
        if not fits or not all(type(value) is int and 1 <= value <= most for value in values):
            raise self._wrong(name, f"{least} to {longest} numbers from 1 to {most}")
        return tuple(values)

    def shares(self, name: str) -> tuple[float, ...]:
        values = self.model.get(name, DEFAULTS[name])
        fits = isinstance(values, list | tuple) and len(values) == BANDS
        if not fits or not all(type(value) is float and 0 < value < 1 for value in values):
            raise self._wrong(name, "three shares between 0 and 1")
        return tuple(values)
