"""The options of the command line, each declared once: its names, its help, and the panel of the help it stands in."""

from pathlib import Path
from typing import Annotated

import typer

from ortsep.commands.choices import Clip, Extension, Gain, Precision, Progress, Provider, Target, Use

WHAT, WHERE, HOW, FILTERS = "What to separate", "Where to", "How", "Filters of magnitude models"
MASKS = "Masks of UVR's VR models"
MACHINE, MANY, TOLD = "Machine", "Lists and clusters", "What is told"

# What is told

Telling = Annotated[
    Progress,
    typer.Option("--progress", metavar="bar|json", help="json: a line of JSON an event.", rich_help_panel=TOLD),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.", rich_help_panel=TOLD)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no messages.", rich_help_panel=TOLD)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=TOLD)]

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also the model, and each stem's level.", rich_help_panel=TOLD)
]

# What to separate

RunModel = Annotated[
    str | None,
    typer.Option("--model", "-n", metavar="MODEL", help="The model; all words are songs then.", rich_help_panel=WHAT),
]
Then = Annotated[
    list[str] | None,
    typer.Option(
        "--then",
        metavar="MODEL[@STEM]",
        help="A further model, which takes apart a stem of the one before; repeatable.",
        rich_help_panel=WHAT,
    ),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Enter the folders in folders too.", rich_help_panel=WHAT)
]
Stems = Annotated[
    str,
    typer.Option("--stems", "--targets", metavar="A,B", help="Only these stems, in this order.", rich_help_panel=WHAT),
]
TwoStems = Annotated[
    str | None,
    typer.Option(
        "--two-stems",
        metavar="STEM",
        help="STEM and the mixture minus it, not the sum of the others.",
        rich_help_panel=WHAT,
    ),
]
Residual = Annotated[bool, typer.Option("--residual", help="Also what is left of the mixture.", rich_help_panel=WHAT)]
Start = Annotated[float, typer.Option("--start", metavar="S", help="Begin here, in seconds.", rich_help_panel=WHAT)]
Duration = Annotated[
    float | None,
    typer.Option("--duration", metavar="S", help="Separate so many seconds only; -1 for all.", rich_help_panel=WHAT),
]
Raw = Annotated[
    str | None,
    typer.Option(
        "--raw",
        metavar="FORMAT:RATE:CHANNELS",
        help="What headerless samples on stdin are, as f32le:44100:2.",
        rich_help_panel=WHAT,
    ),
]
Downmix = Annotated[
    bool,
    typer.Option(
        "--downmix",
        help="Mix songs of many channels to stereo (else two are heard), for a mono model to mono.",
        rich_help_panel=WHAT,
    ),
]
AllowTruncated = Annotated[
    bool, typer.Option("--allow-truncated", help="Separate what is there of a cut file.", rich_help_panel=WHAT)
]

# Where to

Output = Annotated[
    str,
    typer.Option(
        "-o", "--output", metavar="FOLDER", help="For the stems; - writes one stem to stdout.", rich_help_panel=WHERE
    ),
]
Template = Annotated[
    str,
    typer.Option(
        "--template",
        metavar="PATH",
        help="Path below the folder, of {model}, {song}, {stem} and {ext}.",
        rich_help_panel=WHERE,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="wav (the default), flac, ogg, mp3, or stem.mp4: all in one file.",
        rich_help_panel=WHERE,
    ),
]
Flac = Annotated[bool, typer.Option("--flac", help="The same as --format flac.", rich_help_panel=WHERE)]
Mp3 = Annotated[bool, typer.Option("--mp3", help="The same as --format mp3.", rich_help_panel=WHERE)]
Int24 = Annotated[bool, typer.Option("--int24", help="The same as --subtype 24.", rich_help_panel=WHERE)]
Float32 = Annotated[bool, typer.Option("--float32", help="The same as --subtype float.", rich_help_panel=WHERE)]
Subtype = Annotated[
    str | None,
    typer.Option(
        "--subtype",
        metavar="NAME",
        help="float (wav's default), 24 or 16 bits; stem.mp4 also aac.",
        rich_help_panel=WHERE,
    ),
]
Bitrate = Annotated[
    int | None,
    typer.Option("--mp3-bitrate", metavar="KBIT", help="Constant, as 320; varying by default.", rich_help_panel=WHERE),
]
Quality = Annotated[
    float | None,
    typer.Option("--quality", metavar="Q", help="Of mp3 and ogg: 0 (small) to 10 (good).", rich_help_panel=WHERE),
]
ClipMode = Annotated[
    Clip,
    typer.Option(
        "--clip-mode",
        metavar="HOW",
        help="Beyond full scale: rescale (one gain for all stems where a format needs it), clamp or none.",
        rich_help_panel=WHERE,
    ),
]
Tagged = Annotated[
    bool,
    typer.Option(
        "--tags/--no-tags", help="Carry the song's tags and cover over.", show_default=False, rich_help_panel=WHERE
    ),
]
Rate = Annotated[
    int | None,
    typer.Option(
        "--rate", metavar="HZ", help="Sample rate of the stems; by default the song's.", rich_help_panel=WHERE
    ),
]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing/--overwrite",
        help="Leave songs alone whose stems are there and right.",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]
Page = Annotated[
    bool,
    typer.Option("--report", help="Also an HTML page of each song: pictures, levels, players.", rich_help_panel=WHERE),
]
InlineAudio = Annotated[
    bool,
    typer.Option("--inline-audio", help="With --json: the samples too, and no files.", rich_help_panel=WHERE),
]

# How

Overlap = Annotated[
    float | None,
    typer.Option("--overlap", metavar="X", help="Of neighbouring chunks, 0 to 0.99.", rich_help_panel=HOW),
]
Shifts = Annotated[
    int,
    typer.Option("--shifts", metavar="N", help="Average over so many random shifts (Demucs).", rich_help_panel=HOW),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of the shifts.", rich_help_panel=HOW)]
Tta = Annotated[
    bool,
    typer.Option(
        "--tta",
        help="Average with the channels swapped and the sign turned (MSST), or with moved windows (VR).",
        rich_help_panel=HOW,
    ),
]
Denoise = Annotated[
    bool, typer.Option("--denoise", help="0.5 f(x) - 0.5 f(-x) for each chunk x (UVR).", rich_help_panel=HOW)
]
Compensate = Annotated[
    Gain,
    typer.Option(
        "--compensate", help="What an MDX-Net's gain is for; residual as audio-separator.", rich_help_panel=HOW
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.", rich_help_panel=HOW)]
Chunk = Annotated[
    float | None,
    typer.Option(
        "--chunk",
        metavar="S",
        help="Seconds run in one piece, where a model leaves it open.",
        rich_help_panel=HOW,
    ),
]

# Filters

Wiener = Annotated[
    bool,
    typer.Option(
        "--wiener-filter", "--mwf", help="The family's Wiener filter, where off by default.", rich_help_panel=FILTERS
    ),
]
Niter = Annotated[
    int | None,
    typer.Option("--niter", metavar="N", help="EM iterations of the Wiener filter.", rich_help_panel=FILTERS),
]
Softmask = Annotated[
    bool, typer.Option("--softmask", help="Begin the Wiener filter with ratio masks.", rich_help_panel=FILTERS)
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha", metavar="X", help="Exponent of soft masks or of the alpha-Wiener filter.", rich_help_panel=FILTERS
    ),
]
WienerWindow = Annotated[
    int | None,
    typer.Option(
        "--wiener-win-len", metavar="N", help="Frames the Wiener filter sees at once.", rich_help_panel=FILTERS
    ),
]
Rest = Annotated[
    bool,
    typer.Option("--rest", help="The filter counts with what is none of --stems too.", rich_help_panel=FILTERS),
]
Exponent = Annotated[
    float | None, typer.Option("--exponent", metavar="X", help="Of ratio masks.", rich_help_panel=FILTERS)
]
MaskExtension = Annotated[
    Extension | None,
    typer.Option(
        "--mask-extension", metavar="zeros|average", help="Masks above the model's bins.", rich_help_panel=FILTERS
    ),
]

# Masks

Aggression = Annotated[
    int | None,
    typer.Option("--aggression", metavar="N", help="Percent, -50 to 100; 5 by default.", rich_help_panel=MASKS),
]
WindowSize = Annotated[
    int | None,
    typer.Option("--window-size", metavar="N", help="Frames at a time: 320, 512, 1024.", rich_help_panel=MASKS),
]
PostProcess = Annotated[
    float | None,
    typer.Option(
        "--post-process",
        metavar="X",
        help="Give the first stem whole where its mask stays above X.",
        rich_help_panel=MASKS,
    ),
]
HighEnd = Annotated[
    bool, typer.Option("--high-end", help="Fill the bins above what the network hears.", rich_help_panel=MASKS)
]

# Machine

Device = Annotated[
    Provider,
    typer.Option(
        "--provider",
        "--device",
        "-d",
        metavar="NAME",
        help="auto, cpu, cuda, coreml (also as mps), openvino, or openvino-bf16, which is faster and less exact.",
        rich_help_panel=MACHINE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        max=1024,
        help="Of a graph; one per core by default.",
        rich_help_panel=MACHINE,
    ),
]
Jobs = Annotated[
    int,
    typer.Option("--jobs", "-j", metavar="N", min=1, max=64, help="Songs at a time.", rich_help_panel=MACHINE),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="S", help="Give a song up after so many seconds.", rich_help_panel=MACHINE),
]

Manifest = Annotated[
    str | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="A list of songs: .csv, .jsonl, .parquet, .txt; - for standard input.",
        rich_help_panel=MANY,
    ),
]
ShardOf = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only the I-th of N parts of the list.", rich_help_panel=MANY),
]
On = Annotated[
    str | None,
    typer.Option("--on", metavar="ray[://HOST:PORT]", help="Run on a Ray cluster.", rich_help_panel=MANY),
]
Tries = Annotated[
    int,
    typer.Option("--tries", metavar="N", min=1, max=100, help="For a song on a cluster.", rich_help_panel=MANY),
]
ReportTo = Annotated[
    Path | None,
    typer.Option("--report-to", metavar="FILE", help="A row a song: .jsonl or .parquet.", rich_help_panel=MANY),
]

# Of the other commands

Model = Annotated[str, typer.Argument(metavar="MODEL", help="An exported model: name, folder or file.")]


def _models_first(folders: list[Path] | None) -> None:
    if folders:
        from ortsep.models.catalogue import look_first_in

        look_first_in(folders)


ModelsDir = Annotated[
    list[Path] | None,
    typer.Option(
        "--models-dir",
        metavar="FOLDER",
        callback=_models_first,
        help="Look for models here first, as in ORTSEP_MODELS; repeatable.",
        rich_help_panel=MACHINE,
    ),
]
Purpose = Annotated[
    Use | None,
    typer.Option(
        "--for", metavar="WHAT", help="song, vocals, drums, speech, cleaning (reverb, noise) or parts (one instrument)."
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", metavar="PATH|random[:SEED]", help="A checkpoint instead of the official one."),
]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Constructor arguments of a model that is no preset.")
]
Torch = Annotated[
    str,
    typer.Option("--torch", metavar="MODULE:FACTORY", help="A torch network of your own: my_net.py:build."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="As n_fft=7680 or model_param=4band_v3, where no table says it."),
]
Simplify = Annotated[bool, typer.Option("--simplify", help="Try onnxsim too; kept where it gains.")]
ExportTarget = Annotated[
    Target | None,
    typer.Option("--target", help="coreml: fixed shapes, short axes; web: fixed shapes, weights as halves."),
]
Portable = Annotated[bool, typer.Option("--portable", help="Operators of the ONNX standard only.")]
Precise = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="fp32; fp16-weights: half the file; int8: faster. The last two are less exact.",
    ),
]
