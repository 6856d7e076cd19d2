"""What options of the command line let choose from."""

from enum import StrEnum


class Provider(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    coreml = "coreml"
    openvino = "openvino"
    openvino_bf16 = "openvino-bf16"
    mps = "mps"


class Extension(StrEnum):
    zeros = "zeros"
    average = "average"


class Clip(StrEnum):
    rescale = "rescale"
    clamp = "clamp"
    none = "none"


class Progress(StrEnum):
    bar = "bar"
    json = "json"


class Use(StrEnum):
    song = "song"
    vocals = "vocals"
    drums = "drums"
    speech = "speech"
    cleaning = "cleaning"
    parts = "parts"


class Precision(StrEnum):
    fp32 = "fp32"
    fp16_weights = "fp16-weights"
    int8 = "int8"


class Gain(StrEnum):
    stem = "stem"
    residual = "residual"


class Target(StrEnum):
    coreml = "coreml"
    web = "web"


class ExportContract(StrEnum):
    waveform = "waveform"
