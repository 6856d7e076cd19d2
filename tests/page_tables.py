"""What the commands of the pages need to be run in a test, and which can't be: each with its reason."""

import re

BY_CI = "CI runs it"
HOURS = "takes from minutes to hours; the figures beside it are what it said"
REGISTRY = "makes environments of its own from the package registry; .github/workflows/ci.yml runs it"
NOT_RUN = {
    r"^make (demo|wheel|test|lint|binary)(?!-)\b": BY_CI,
    r"^make (docs|sdist|matrix)\b": REGISTRY,
    r"^make (test-long|fuzz|soak)\b": HOURS,
    r"^make bench\b": HOURS,
    r"^make .*WEIGHTS=path/to": "needs published weights, which no registry has",
    r"^pip (un)?install\b": "changes the environment; deploy/check and make wheel install what is built",
    r"^python (benchmarks|tests/parity)/": HOURS,
    r"^python -m training\.": "trains for hours; tests/training runs a short one",
    r"^python -m pytest": "is tests itself",
    r"^g\+\+": "tests/commands/test_embedding.py builds and runs it",
}
"""By what a command begins with or holds."""
LONG = re.compile(
    r"ortsep (export|validate|score|doctor)|^make (export|validate)|--(rewrite|jobs|report|tune)\b|s3://|--on ray"
    r"|ortsep run (two_stems|FILE)\b"
)
"""Imports torch and builds networks, measures, starts processes or stores, or runs what was just exported."""
ALONE = re.compile(r"ortsep adopt (\S+\.onnx)")
"""Wants a folder in which no other model lies."""
INSTEAD = {
    r"^make export MODEL=(\S+).*": r"ortsep export \1 --weights random",
    r"^make validate MODEL=(\S+) SONG=(\S+)": r"ortsep export \1 --weights random && ortsep validate \1 --song \2",
    r"^((?:.venv/bin/)?ortsep export (?!\S+\.(?:ckpt|pth))\w[\w:.-]*)": r"\1 --weights random",  # no network here
    r"^\.\.\. \|": "cat song.f32 |",
    r"--set \.\.\.": "--set n_fft=6144 --set primary=Vocals --set compensate=1",
    r"/scratch/": "scratch/",
    r"^eval \"\$\(ortsep completion zsh": r"autoload -U compinit; compinit -u; \g<0>",
    r"^(ortsep serve)": r"\1 --port 0 --json",  # any that is free
}
"""What is typed instead, where no reader could type it here."""
PRELUDES = {
    "README.md: import ortsep": "",
    "docs/tutorial.md: import numpy": "",
    "docs/serve.md: from ortsep.client": "",
    "docs/python.md: from ortsep.report": """
import ortsep
separator, files, options = ortsep.Separator("drums_mini"), ortsep.Files(), ortsep.Options()
report = ortsep.separate_file(separator, "song.wav", files, options)
""",
    "docs/python.md: chain = ": "import ortsep\nseparator = ortsep.Separator('drums_mini')\n",
    "docs/options.md: Chain.of": "from ortsep import Chain, Separator\n"
    "first, second, third = map(Separator, ('htdemucs', 'bs_roformer_dereverb_8', 'drumsep'))\n",
    "models/README.md: onnxruntime": "import onnxruntime, os\nos.chdir('models/exported/htdemucs')\n",
}
"""Blocks of Python that are run, by their first line, and what has to stand before them."""
SHOWN = {
    "README.md: Prove the export": "what make demo says",
    "README.md: base/ ": "the rooms, which tests/models/test_imports.py holds to their order",
    "models/README.md: models/exported": "a folder, as tests/export/test_exporter.py makes it",
    "docs/reliability.md: model ": "what benchmarks/memory.py says",
    "docs/score.md: song4": "what ortsep score says",
    "docs/embedding.md: ": "tests/commands/test_embedding.py runs it",
    "docs/own_network.md: ": "tests/export/test_own.py runs it",
    "docs/python.md: >>> ": "tests/runtime/test_public.py runs it",
    "docs/fleet.md: from ortsep.fleet": "tests/fleet/test_fleet.py calls it so",
}
"""Blocks that are no commands, by their first line."""
