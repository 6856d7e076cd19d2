"""What a client may ask for: the options of ``ortsep run`` by the same names, checked before a job is made."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ortsep.options import TUNING, Options
from ortsep.songs import Files


def _listed(value: object) -> object:
    """``a,b`` as two names, as on the command line."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return [name.strip() for part in value for name in part.split(",") if name.strip()]
    return value


def _blank(value: object) -> object:
    """An empty field of a form is one that was left alone."""
    return None if value == "" else value


Blank = BeforeValidator(_blank)
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Names = Annotated[list[Name], BeforeValidator(_listed), Field(max_length=32)]


class SeparationRequest(BaseModel):
    """A model, or a chain of them, and the options of ``ortsep run``. Times in seconds, ``rate`` in Hz."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: Annotated[Name | None, Blank] = Field(None, description="Name of a model of this server.")
    then: Names = Field(
        default_factory=list, description="Models that separate a stem further, as MODEL or MODEL@STEM."
    )
    stems: Names = Field(default_factory=list, description="Only these stems.")
    two_stems: Annotated[Name | None, Blank] = Field(None, description="STEM and everything else.")
    residual: bool = Field(False, description="Also what is left of the mixture.")
    format: Literal["wav", "flac", "ogg", "mp3"] = "wav"
    subtype: Annotated[Literal["float", "24", "16"] | None, Blank] = None
    rate: Annotated[Annotated[int, Field(ge=1000, le=768_000)] | None, Blank] = None
    start: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    duration: Annotated[Annotated[float, Field(gt=0, le=1e6)] | None, Blank] = None
    downmix: bool = False
    allow_truncated: bool = False
    overlap: Annotated[Annotated[float, Field(ge=0, le=0.99)] | None, Blank] = None
    shifts: Annotated[int, Field(ge=0, le=20)] = 0
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    tta: bool = Field(False, description="The mean of several passes: chunks turned about, or VR's windows moved.")
    denoise: bool = Field(False, description="0.5 f(x) - 0.5 f(-x) for each chunk.")
    compensate: Literal["stem", "residual"] = Field("stem", description="What an MDX-Net's gain is for.")
    chunk: Annotated[Annotated[float, Field(gt=0, le=3600)] | None, Blank] = None
    niter: Annotated[Annotated[int, Field(ge=0, le=64)] | None, Blank] = None
    softmask: Annotated[bool | None, Blank] = None
    alpha: Annotated[Annotated[float, Field(gt=0, le=16)] | None, Blank] = None
    wiener_window: Annotated[Annotated[int, Field(gt=0, le=100_000)] | None, Blank] = None
    exponent: Annotated[Annotated[float, Field(gt=0, le=16)] | None, Blank] = None
    mask_extension: Annotated[Literal["zeros", "average"] | None, Blank] = None
    wiener: Annotated[bool | None, Blank] = None
    rest: bool = Field(False, description="The Wiener filter counts with what is none of the stems asked for.")
    aggression: Annotated[
        Annotated[int, Field(ge=-50, le=100)] | None, Blank, Field(description="Percent, of VR models.")
    ] = None
    window: Annotated[
        Annotated[int, Field(ge=16, le=1 << 16)] | None, Blank, Field(description="Frames at a time, of VR models.")
    ] = None
    post_process: Annotated[
        Annotated[float, Field(ge=1e-3, le=0.999)] | None,
        Blank,
        Field(description="The first stem whole where its mask stays above this, of VR models."),
    ] = None
    high_end: bool = Field(False, description="Fill the bins above what a VR model hears.")
    report: bool = Field(False, description="Also an HTML page with pictures (needs matplotlib on the server).")

    def options(self) -> Options:
        """Raises UsageError for options that exclude each other."""
        names = (*(name for name in TUNING if name != "downmix"), "residual", "two_stems")
        return Options(stems=tuple(self.stems), **{name: getattr(self, name) for name in names})

    def files(self, folder: Path) -> Files:
        """Where the stems of a job go, below its own folder."""
        names = ("format", "subtype", "rate", "start", "duration", "downmix", "allow_truncated")
        return Files(output=folder, template="stems/{stem}.{ext}", **{name: getattr(self, name) for name in names})


def read_request(fields: Iterable[tuple[str, str]]) -> SeparationRequest:
    """The fields of a form or of a query string. Raises pydantic's ValidationError."""
    given: dict[str, Any] = {}
    for name, value in fields:
        if name in ("then", "stems"):
            given.setdefault(name, []).append(value)
        elif name in given:
            raise _twice(name)
        else:
            given[name] = value
    return SeparationRequest.model_validate(given)


def _twice(name: str) -> ValidationError:
    return ValidationError.from_exception_data(
        "SeparationRequest", [{"type": "value_error", "loc": (name,), "input": name, "ctx": {"error": "given twice"}}]
    )


def first_fault(error: ValidationError) -> str:
    """What is wrong with a request, in one sentence."""
    fault: Mapping[str, Any] = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, fault["loc"])) or "request"
    if fault["type"] == "extra_forbidden":
        known = ", ".join(SeparationRequest.model_fields)
        return f"there is no option {where!r}; the options are {known}"
    return f"the option {where} can't be {str(fault.get('input'))[:80]!r} ({fault['msg']}); change it"
