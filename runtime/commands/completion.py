"""Completion in shells: what fits at the cursor, and the few lines of bash, zsh and fish that ask for it.

Nothing fits where a file is meant: then the shell completes its own files.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ortsep.base.errors import UsageError
from ortsep.base.paths import is_folder
from ortsep.models.catalogue import (
    card_named,
    catalogue,
    folder_name,
    is_model_path,
    look_first_in,
    model_homes,
    ready_folder,
    ready_folders,
)
from ortsep.stems.manifest import FILE_NAME

SCRIPTS = {
    "bash": """\
# Completion of ortsep for bash. Put into ~/.bashrc:  eval "$(ortsep completion bash)"
_ortsep() {
    local line=${COMP_LINE:0:COMP_POINT} reply word colon=""
    COMPREPLY=()
    word=${line##*[[:space:]]}
    # bash takes a colon for the end of a word, and keeps what stands before the last one
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && colon=${word%"${word##*:}"}
    while IFS= read -r reply; do
        COMPREPLY+=("${reply#"$colon"}")
    done < <(ortsep complete "$line" 2>/dev/null)
}
complete -o default -o bashdefault -F _ortsep ortsep
""",
    "zsh": """\
#compdef ortsep
# Completion of ortsep for zsh. Put into ~/.zshrc, behind compinit:  eval "$(ortsep completion zsh)"
_ortsep() {
    local -a found
    found=("${(@f)$(ortsep complete "$LBUFFER" 2>/dev/null)}")
    if [[ -n ${found[1]} ]]; then compadd -Q -- "${found[@]}"; else _files; fi
}
compdef _ortsep ortsep
""",
    "fish": """\
# Completion of ortsep for fish. Put into ~/.config/fish/config.fish:  ortsep completion fish | source
function __ortsep_complete
    set -l found (ortsep complete (commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c ortsep -f -a '(__ortsep_complete)'
""",
}
_READY = ("validate", "inspect", "bench", "doctor")
"""Commands whose word is a model that is there."""
_CHOICES = {
    "--provider": ("auto", "cpu", "cuda", "coreml", "openvino", "openvino-bf16", "mps"),
    "--format": ("wav", "flac", "ogg", "mp3"),
    "--subtype": ("float", "24", "16"),
    "--progress": ("bar", "json"),
    "--mask-extension": ("zeros", "average"),
    "--precision": ("fp32", "fp16-weights", "int8"),
    "--clip-mode": ("rescale", "clamp", "none"),
    "--for": ("song", "vocals", "drums", "speech", "cleaning", "parts"),
    "--against": ("original",),
    "--weights": ("random",),
}


def script(shell: str) -> str:
    """What a shell has to be told. Raises UsageError for one that is not known."""
    name = Path(shell).name
    if name not in SCRIPTS:
        raise UsageError(f"there is no completion for {shell!r}; there is for {', '.join(SCRIPTS)}")
    return SCRIPTS[name]


def candidates(commands: Any, line: str) -> list[str]:
    """What fits behind ``line``, which is what stands before the cursor; ``commands`` is the command line's group."""
    words = line.split()
    current = "" if not words or line[-1:].isspace() else words.pop()
    words = words[1:]
    if not words:
        shown = [name for name, command in commands.commands.items() if not command.hidden]
        return _fitting([*shown, "--help", "--version"] if current.startswith("-") else shown, current)
    command = commands.commands.get(words[0])
    if command is None:
        return []
    takes = {name: param for param in command.params if param.param_type_name == "option" for name in _names(param)}
    if current.startswith("-"):
        return _fitting([name for name in (*takes, "--help") if name.startswith("--")], current)
    folders = [Path(value) for option, value in pairwise(words) if option == "--models-dir"]
    look_first_in([folder for folder in folders if is_folder(folder)])
    last = words[-1]
    if last in takes and not takes[last].is_flag:
        return _of_option(takes[last], current, words)
    plain = list(_plain(words[1:], takes))
    if (plain and command.name != "run") or command.name in ("adopt", "optimize", "serve"):
        return []
    if command.name == "completion":
        return _fitting(list(SCRIPTS), current)
    if plain or "-n" in words or "--model" in words or "/" in current or current.startswith("."):
        return []
    return _fitting(_models(command.name in _READY), current)


def _of_option(param: Any, current: str, words: Sequence[str]) -> list[str]:
    names = _names(param)
    if "--stems" in names:
        done, comma, open_ = current.rpartition(",")
        chosen = done.split(",")
        return [f"{done}{comma}{stem}" for stem in _fitting(_stems(words), open_) if stem not in chosen]
    if "--two-stems" in names:
        return _fitting(_stems(words), current)
    if {"--model", "--models", "--then"} & set(names):
        return _fitting(_models(False), current)
    return _fitting([choice for name in names for choice in _CHOICES.get(name, ())], current)


def _names(param: Any) -> list[str]:
    return [*param.opts, *param.secondary_opts]


def _plain(words: Sequence[str], takes: dict[str, Any]) -> Iterator[str]:
    """The words that are neither options nor their values."""
    value = False
    for word in words:
        if not value and not word.startswith("-"):
            yield word
        value = not value and word in takes and not takes[word].is_flag


def _models(ready: bool) -> list[str]:
    """Names of models: those that are ready, and unless only these count, all of the catalogue."""
    folders = ready_folders()
    cards = [card.name for card in catalogue().values() if not ready or ready_folder(card.name) is not None]
    known = {folder_name(card.name) for card in catalogue().values()}
    here = [path.name for path in sorted(Path().iterdir()) if is_model_path(path)]
    return [*cards, *(name for name in folders if name not in known), *here, *_loose()]


def _loose() -> list[str]:
    """Names of the files in the homes of models that are no folder's own model: people's folders of other tools."""
    places = [place for home in model_homes() for place in (home, *home.glob("*/")) if not (place / FILE_NAME).exists()]
    return [file.stem for place in places for file in sorted(place.glob("*.onnx"))]


def _stems(words: Sequence[str]) -> list[str]:
    """Of the first word that is a model; of every model of the catalogue where there is none."""
    for word in words[1:]:
        folder = ready_folder(word)
        manifest = (folder or Path(word)) / FILE_NAME
        if manifest.is_file():
            return manifest.read_text(encoding="utf-8", errors="replace").split()
        if (card := card_named(word)) is not None:
            return list(card.stems)
    return list(dict.fromkeys(stem for card in catalogue().values() for stem in card.stems))


def _fitting(words: Sequence[str], begun: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(begun)]
