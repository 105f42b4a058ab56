"""Each reader of the rigs finds each kind of fault, and finds none in files that are right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reads.reader import understood
from support.counted import ReaderProcess, Readers, compiled, readers
from support.minted import Minted, boot_ms, mint, understand
from support.process import eventually

pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("gcc", "dash", "bash")), reason="needs gcc, dash and bash"
)

LATER = boot_ms() + 3_600_000
LENGTH = 5000
OLD, NEW = (mint(Minted(number, LATER, LENGTH)) for number in (7, 8))
MIXED = NEW[:4096] + OLD[4096:]
FORMATS = ("raw", "json", "header", "env", "template")


def content(kind: str, token: str, number: int = 8) -> str:
    """A file as bearerd writes it."""
    document = {
        "access_token": token,
        "expires_in": 3600,
        "expires_at": "2026-11-29T13:00:00Z",
        "obtained_at": "2026-11-29T12:00:00Z",
        "scope": f"bci n{number}",
    }
    return {
        "raw": token,
        "json": f"{json.dumps(document)}\n",
        "header": f"Authorization: Bearer {token}\n",
        "env": f"TOKEN='{token}'\n",
        "template": f"first={token}\nsecond={token}\n",
    }[kind]


def spoilt(kind: str) -> dict[str, str]:
    """Files that no reader may see."""
    whole = content(kind, NEW)
    old = content(kind, OLD, 7)
    wrong = {
        "empty": "",
        "cut": whole[:-1],
        "without its begin": whole[1:],
        "a page": whole[:4096],
        "mixed": content(kind, MIXED),
        "a new page and an old rest": whole[:4096] + old[4096:],
        "longer by an old rest": whole + old[-10:],
    }
    if kind == "json":
        wrong["another document's token"] = content(kind, NEW, 7)
    if kind == "template":
        wrong["two tokens"] = f"first={NEW}\nsecond={OLD}\n"
    return wrong


def c(way: str) -> Callable[[Readers, list[str]], None]:
    """A reader in C."""
    return lambda started, files: started.c(way, way, files)


def shell(program: str, way: str) -> Callable[[Readers, list[str]], None]:
    """A reader in a shell."""
    return lambda started, files: started.shell(f"{program} {way}", program, way, files)


def python(started: Readers, files: list[str]) -> None:
    started.python("Python", files, 0.001)


ALL = {
    **{f"C {way}": c(way) for way in ("read", "pieces", "mmap", "stat", "held", "inotify")},
    "Python": python,
    "sh cat": shell("dash", "cat"),
    "sh read": shell("dash", "read"),
    "bash substitute": shell("bash", "substitute"),
}


def put(path: Path, text: str) -> None:
    """Replace a file as bearerd does."""
    path.with_name(".new").write_text(text)
    path.with_name(".new").rename(path)


def reported(reader: ReaderProcess, path: Path) -> bool:
    """Whether a reader described a fault of a file."""
    return any(str(path) in fault for fault in reader.faults)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("program"))


@pytest.mark.parametrize("kind", ALL)
def test_each_reader_finds_torn_expired_and_older_tokens(kind: str, program: Path, tmp_path: Path) -> None:
    spoiled = spoilt("raw") | {"expired": mint(Minted(9, boot_ms() - 1, LENGTH)), "older": OLD}
    bad = {tmp_path / name.replace(" ", "-"): text for name, text in spoiled.items()}
    good = tmp_path / "good"
    for path in (good, *bad):
        put(path, NEW)
    with readers(program, 0) as started:
        ALL[kind](started, [f"raw:{path}" for path in (good, *bad)])
        [reader] = started.all
        eventually(lambda: reader.counts.reads > len(bad))
        assert reader.faults == []
        for path, text in bad.items():
            put(path, text)
        eventually(lambda: all(reported(reader, path) for path in bad))
        reader.end()
        assert not reported(reader, good)
        assert min(reader.counts.torn, reader.counts.expired, reader.counts.older) > 0
        assert reader.counts.absent == 0


@pytest.mark.parametrize("kind", ["C read", "C mmap", "C stat", "Python", "sh cat", "sh read", "bash substitute"])
def test_each_reader_finds_a_file_that_is_gone(kind: str, program: Path, tmp_path: Path) -> None:
    file, good = tmp_path / "file", tmp_path / "good"
    for path in (file, good):
        put(path, NEW)
    with readers(program, 0) as started:
        ALL[kind](started, [f"raw:{path}" for path in (file, good)])
        [reader] = started.all
        eventually(lambda: reader.counts.reads > 2)
        file.unlink()
        eventually(lambda: reader.counts.absent > 0)
        reader.end()
        assert not reported(reader, good)


def test_a_file_that_changes_while_it_is_open_is_found(program: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    put(file, OLD)
    with readers(program, 0) as started:
        started.c("held", "held", [f"raw:{file}"])
        [reader] = started.all
        eventually(lambda: reader.counts.reads > 2)
        with file.open("r+") as opened:  # whole again after one write, as a program that writes in place would do it
            opened.write(NEW)
        eventually(lambda: reader.counts.torn > 0)


@pytest.mark.parametrize("kind", FORMATS)
def test_c_and_python_agree_on_each_format(kind: str, program: Path, tmp_path: Path) -> None:
    bad = {tmp_path / name.replace(" ", "-"): text for name, text in spoilt(kind).items()}
    good = tmp_path / "good"
    for path, text in {good: content(kind, NEW), **bad}.items():
        path.write_text(text)
    token = understand(NEW)
    assert understood(kind, good.read_bytes()) == token is not None
    assert [path.name for path in bad if understood(kind, path.read_bytes()) is not None] == []
    with readers(program, 0) as started:
        started.c("C", "read", [f"{kind}:{path}" for path in (good, *bad)])
        [reader] = started.all
        eventually(lambda: all(reported(reader, path) for path in bad))
        reader.end()
        assert not reported(reader, good)


def test_sh_finds_torn_env_files(program: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    put(file, content("env", NEW))
    with readers(program, 0) as started:
        started.shell("sh", "dash", "source", [f"env:{file}"])
        [reader] = started.all
        eventually(lambda: reader.counts.reads > 0)
        assert reader.faults == []
        put(file, content("env", MIXED))
        eventually(lambda: reader.counts.torn > 0)
