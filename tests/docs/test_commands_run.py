"""Every command of the README and of docs/ is run as it stands, in a folder like a reader's (``page_world``).

What can't be is named in ``page_tables`` with its reason; so are the blocks that hold no command. What takes minutes,
since it imports torch or builds whole networks, is run by ``make test-long``; the rest of its block by ``make test``.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx")
from page_tables import ALONE, BY_CI, INSTEAD, LONG, NOT_RUN, PRELUDES, SHOWN
from page_world import checkpoints, make_room, prepared
from pages import Block, blocks
from places import ROOT
from serving import served

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "models" / "README.md"]
ALL = [
    block
    for page in PAGES
    for block in blocks(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))
    if not block.language.startswith("{")
]
ADDRESS = "http://127.0.0.1:8000"
OUTPUT = re.compile(r"(?:separated|models)/[\w./{},-]+")
"""A file that a comment promises."""


def reason(command: str) -> str:
    """Why a command is not run; empty for one that is."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), "")


def runnable(block: Block, long: bool) -> list[str]:
    """Its commands that are run in the long tests, or in the others."""
    found = [command for command in block.commands if not reason(command)]
    return found if long else [command for command in found if not LONG.search(command)]


def is_python(block: Block) -> bool:
    first = f"{block.page}: {block.lines[0]}"
    return any(first.startswith(start) for start in PRELUDES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def place(world: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder, with the home beside it."""
    shutil.copytree(world.parent, tmp_path / "all", copy_function=os.link)
    (tmp_path / "all" / "work" / ".venv").symlink_to(sys.prefix)
    return tmp_path / "all" / "work"


@pytest.fixture
def store(request: pytest.FixtureRequest, place: Path) -> Iterator[dict[str, str]]:
    """The environment of an S3 server on loopback with songs in it, for blocks that name one."""
    if "s3://" not in request.node.callspec.params["block"].text:
        yield {}
        return
    moto, fsspec = pytest.importorskip("moto.server"), pytest.importorskip("fsspec")
    pytest.importorskip("s3fs")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    settings = {"ENDPOINT_URL": "http://{}:{}".format(*running.get_host_and_port()), "ACCESS_KEY_ID": "a"}
    settings |= {"SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    env = {f"AWS_{name}": value for name, value in settings.items()}
    made = f"""
import fsspec
store = fsspec.filesystem("s3")
for name in ("music", "bucket"):
    store.exists(name) or store.mkdir(name)  # moto's servers in one process share what they hold
store.put_file({str(place / "song.flac")!r}, "music/in/first/song.flac")
"""
    assert fsspec
    subprocess.run([sys.executable, "-c", made], check=True, env={**os.environ, **env})
    yield env
    running.stop()


def surroundings(place: Path, more: dict[str, str]) -> dict[str, str]:
    """A reader's: a home of their own, ortsep on the PATH, nothing of the tests' own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORTSEP_", "XDG_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    jobs = {"SLURM_ARRAY_TASK_ID": "1", "AWS_BATCH_JOB_ARRAY_INDEX": "0"}
    return {**kept, **jobs, **more, "HOME": str(place.parent / "home"), "PATH": path}


def alone(place: Path, pattern: str) -> Path:
    """A folder that holds these files and nothing else."""
    folder = Path(tempfile.mkdtemp(dir=place))
    for file in place.glob(pattern.replace("*", "[Uh]*")):  # of all, those whose names or tensors say enough
        (folder / file.name).hardlink_to(file)
    return folder


@contextlib.contextmanager
def answering(code: str, place: Path, env: dict[str, str]) -> Iterator[str]:
    """What asks the pages' address asks a server that runs meanwhile, on a port that is free."""
    if ADDRESS not in code:
        yield code
        return
    server = served("ortsep serve --port 0 --json", place, env)
    yield code.replace(ADDRESS, server.address)
    assert server.stop() == 0


def run(command: str, place: Path, env: dict[str, str]) -> None:
    """One line of shell; what its comment promises has to be there."""
    given = command
    for pattern, words in INSTEAD.items():
        given = re.sub(pattern, words, given)
    if found := ALONE.match(given):
        place = alone(place, found[1])
    shell = next((shell for shell in ("zsh", "fish") if f"completion {shell}" in given), "bash")
    for program in {shell, *re.findall(r"\b(?:ffmpeg|curl)\b", given)}:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} for {command}")
    if "--oracle" in given:
        checkout = os.environ.get("ORTSEP_MSST") or pytest.skip("no checkout of MSST in $ORTSEP_MSST")
        given = re.sub(r"(--oracle) \S+", rf"\1 {checkout}", given)
    if given.startswith("ortsep serve"):
        assert served(given.partition("#")[0], place, env).stop() == 0
        return
    with answering(given, place, env) as asked:
        words = [shell, "-c", asked if shell == "fish" else f"set -o pipefail; {asked}"]
        done = subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 and "Traceback" not in done.stderr, (given, done.stdout[-2000:], done.stderr[-2000:])
    for promised in OUTPUT.findall(command.partition("#")[2]):
        for name in subprocess.run(["bash", "-c", f"echo {promised}"], capture_output=True, text=True).stdout.split():
            assert (place / name).exists(), f"{command}: there is no {name}"


@pytest.mark.parametrize("block", [b for b in ALL if runnable(b, long=False)], ids=lambda b: b.label)
def test_commands(block: Block, place: Path, store: dict[str, str]) -> None:
    for command in runnable(block, long=False):
        run(command, place, surroundings(place, store))


@pytest.mark.long
@pytest.mark.parametrize(
    "block", [b for b in ALL if LONG.search(" ".join(runnable(b, long=True)))], ids=lambda b: b.label
)
def test_blocks_with_what_takes_minutes(block: Block, place: Path, store: dict[str, str]) -> None:
    """Whole blocks, in their order."""
    checkpoints(place, block)
    for command in runnable(block, long=True):
        make_room(place, command)
        run(command, place, surroundings(place, store))


@pytest.mark.parametrize("block", [b for b in ALL if is_python(b)], ids=lambda b: b.label)
def test_python(block: Block, place: Path) -> None:
    first = f"{block.page}: {block.lines[0]}"
    code = next(before for start, before in PRELUDES.items() if first.startswith(start)) + block.text
    env = surroundings(place, {})
    with answering(code, place, env) as asked:
        done = subprocess.run([sys.executable, "-c", asked], cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_block_is_run_or_named() -> None:
    """Lines of shell are commands all, others are named with who runs them; no reason stands for nothing."""
    for block in ALL:
        assert not block.others, f"{block.page}, line {block.line}: {block.others[0]!r} is no command that is known"
        first = f"{block.page}: {block.lines[0]}"
        named = any(first.startswith(start) for start in SHOWN) or is_python(block)
        assert block.commands or named, f"{block.page}, line {block.line}: neither run nor named in page_tables.py"
    commands = [command for block in ALL for command in block.commands]
    firsts = [f"{block.page}: {block.lines[0]}" for block in ALL]
    for pattern in (*NOT_RUN, *INSTEAD):
        assert any(re.search(pattern, command) for command in commands), f"nothing is like {pattern}"
    for start in (*SHOWN, *PRELUDES):
        assert any(first.startswith(start) for first in firsts), f"no block begins with {start}"


def test_what_is_not_run_could_be() -> None:
    """CI has the lines that are said to be its own; targets, scripts and their options are there."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for command in {command for block in ALL for command in block.commands if reason(command)}:
        words = command.partition("#")[0].split()
        if reason(command) == BY_CI:
            assert f"make {words[1]}\n" in script, command
        if words[0] == "make":
            assert words[1] in targets, command
        if words[0] == "python" and words[1] != "-m":
            code = (ROOT / words[1]).read_text(encoding="utf-8")
            for option in re.findall(r"--[\w-]+", " ".join(words)):
                assert f'"{option}"' in code, f"{words[1]} has no {option}"
