"""Looks for secrets and tokens where they must not be: in logs, and in the output of processes.

Every process that inherits the environment of a `Tap` tells which secrets it handled and what it logged, at DEBUG in
both formats (`support.tap`). A secret counts as found if it is there as it is, or in any encoding that a program could
use: quoted for JSON, for Python or for a URL, in base64 at any offset, or in hex.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from support import tap

_PIECE: Final = 12
"""Characters in a row that are looked for: a part of a secret is as bad as all of it."""
_ENCODED: Final = 6
"""Bytes: a shorter secret has too few characters in base64 or hex to be told from other text."""
_SHORTEST: Final = 3
_WORD: Final = re.compile(r"[a-z]{1,11}|[0-9]{1,7}")
"""Secrets of tests that could be a word or a number of a message, and are not looked for."""
_URL: Final = re.compile(r"[a-z+]+://(?:([^@/]*)@)?\S*")
"""Of a URL only the login is secret: messages name hosts."""
_WORDS: Final = re.compile(rb"[A-Za-z0-9_~-]+")
_LONG_WORDS: Final = re.compile(rb"[A-Za-z0-9_.~+/=%-]+")
"""What stands alone in a line, with fewer and with more punctuation: short secrets are looked for among these."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret that was found, and the line around it without the secret."""

    where: str
    kind: str
    form: str
    line: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.form}) in {self.where}: {self.line}"


class Canary:
    """The secrets that are known so far, and a search for all of them."""

    def __init__(self) -> None:
        self.unmarked: set[str] = set()
        """Secrets that are not looked for, because they could be a word of a message."""
        self._kinds: dict[str, str] = {}
        self._public: set[str] = set()
        self._whole: dict[bytes, tuple[str, str, str]] = {}
        self._pieces: dict[bytes, tuple[str, str, str, bytes]] = {}

    def __len__(self) -> int:
        """How many secrets are looked for."""
        return len(self._kinds)

    def add(self, kind: str, text: str) -> None:
        """Look for a secret from now on."""
        if url := _URL.fullmatch(text):
            text = url[1] or ""
        if kind == tap.PUBLIC:
            self._public.add(text)
        if text in self._kinds or text in self._public:
            return
        if len(text) < _SHORTEST or _WORD.fullmatch(text):
            self.unmarked.add(text)
            return
        self._kinds[text] = kind
        for form, content in forms(text):
            known = (kind, form, text, content)
            if len(content) < _PIECE:
                self._whole.setdefault(content, known[:3])
                continue
            # Any _PIECE bytes in a row hold one of these pieces as a whole.
            half = _PIECE // 2
            for start in range(0, len(content) - half + 1, half):
                self._pieces.setdefault(content[start : start + half], known)

    def search(self, where: str, content: bytes) -> Iterator[Hit]:
        """All known secrets in a text: each one once in each line, which is shown without them."""
        public = [text.encode() for text in self._public]
        for line in content.splitlines():
            hits = [hit for hit in self._in_line(line) if not any(hit[3] in text for text in public)]
            shown = line
            for *_, found in sorted(hits, key=lambda hit: -len(hit[3])):
                shown = shown.replace(found, b"*" * 8)
            first = {text: (kind, form) for kind, form, text, _ in reversed(hits)}
            for kind, form in first.values():
                yield Hit(where, kind, form, shown[:300].decode(errors="backslashreplace"))

    def _in_line(self, line: bytes) -> Iterator[tuple[str, str, str, bytes]]:
        """Kind, form and text of each secret in a line, and what of it is there."""
        for word in {*_WORDS.findall(line), *_LONG_WORDS.findall(line), *line.split()}:
            if known := self._whole.get(word.strip(b".,;:")):
                yield (*known, word)
        if not self._pieces or len(line) < _PIECE:
            return
        half, pieces = _PIECE // 2, self._pieces
        for start in range(len(line) - half + 1):
            known_piece = pieces.get(line[start : start + half])
            if known_piece is None:
                continue
            kind, form, text, whole = known_piece
            if found := _common(whole, line, line[start : start + half], start):
                yield kind, form, text, found


def _common(whole: bytes, line: bytes, piece: bytes, at: int) -> bytes:
    """The text around a piece that the line and a secret have in common, if it is long enough."""
    start = whole.find(piece)
    while start >= 0:
        before = after = 0
        while start > before and at > before and whole[start - before - 1] == line[at - before - 1]:
            before += 1
        end, stop = start + len(piece), at + len(piece)
        while end + after < len(whole) and stop + after < len(line) and whole[end + after] == line[stop + after]:
            after += 1
        if before + len(piece) + after >= _PIECE:
            return line[at - before : stop + after]
        start = whole.find(piece, start + 1)
    return b""


def forms(text: str) -> Iterator[tuple[str, bytes]]:
    """A secret in every encoding in which a program could show it, with the name of the encoding."""
    content = text.encode(errors="surrogatepass")
    found = {"as it is": text}
    found["for JSON"] = json.dumps(text)[1:-1]
    found["for Python"] = repr(text)[1:-1]
    found["for a URL"], found["for a form"] = quote(text, safe=""), quote_plus(text)
    if len(content) >= _ENCODED:
        found["in hex"] = content.hex()
        for offset in range(3):
            # The first and the last characters depend on what surrounds the secret.
            whole = base64.b64encode(b"\0" * offset + content).decode().rstrip("=")
            inner = whole[(0, 2, 3)[offset] : len(whole) - (1 if (len(content) + offset) % 3 else 0)]
            found[f"in base64 at {offset}"] = inner
            found[f"in base64url at {offset}"] = inner.replace("+", "-").replace("/", "_")
    seen: set[bytes] = set()
    for name, form in found.items():
        encoded = form.encode(errors="surrogatepass")
        if encoded not in seen and len(encoded) >= _SHORTEST:
            seen.add(encoded)
            yield name, encoded


class Tap:
    """Where processes tell what they handle and log. Its `environ` makes a process do so."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="bearerd-tap-"))
        self._root.chmod(0o755)
        library, self._told = self._root / "lib", self._root / "told"
        library.mkdir(mode=0o755)
        self._told.mkdir()
        self._told.chmod(0o1777)  # processes of other users tell as well
        shutil.copy(tap.__file__, library / "bearerd_tap.py")
        (library / "sitecustomize.py").write_text("import bearerd_tap\n")
        paths = os.pathsep.join([str(library), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environ: Mapping[str, str] = {"PYTHONPATH": paths, tap.DIRECTORY: str(self._told)}
        self._read: dict[Path, int] = {}

    def take(self) -> Iterator[tuple[str, str]]:
        """What processes told since the last call: the kind of a text, and the text."""
        for path in sorted(self._told.iterdir()):
            known = self._read.get(path, 0)
            if path.stat().st_size == known:
                continue
            with path.open("rb") as file:
                file.seek(known)
                content = file.read()
            content = content[: content.rfind(b"\n") + 1]
            self._read[path] = known + len(content)
            for line in content.splitlines():
                kind, text = json.loads(line)
                yield kind, text

    def close(self) -> None:
        """Remove everything that was told."""
        shutil.rmtree(self._root, ignore_errors=True)


class Watch:
    """A tap with its canary: collects what was told and shown, and finds the secrets in it."""

    def __init__(self) -> None:
        self.canary = Canary()
        self.tap = Tap()
        self.bytes = 0
        """What was searched so far."""
        self.lines = 0
        """Of the log."""
        self._shown: list[tuple[str, bytes]] = []

    def tell(self, kind: str, text: str) -> None:
        """Take what this process itself handles."""
        if kind == tap.LINE:
            self._shown.append(("the log", text.encode(errors="backslashreplace")))
            self.lines += 1
        else:
            self.canary.add(kind, text)

    def show(self, where: str, content: str | bytes) -> None:
        """Take the output of a process."""
        self._shown.append((where, content if isinstance(content, bytes) else content.encode(errors="surrogateescape")))

    def hits(self) -> list[Hit]:
        """The secrets in everything that was told and shown since the last call."""
        for kind, text in self.tap.take():
            self.tell(kind, text)
        shown, self._shown = self._shown, []
        self.bytes += sum(len(content) for _, content in shown)
        return [hit for where, content in shown for hit in self.canary.search(where, content)]

    def close(self) -> None:
        """Remove what was told."""
        self.tap.close()


_watching: list[Watch] = []


def watch(one: Watch | None) -> None:
    """Let `show` pass the output of processes to this one, or to none."""
    _watching[:] = [one] if one else []


def watching() -> Sequence[Watch]:
    """Those that `show` passes the output of processes to."""
    return _watching


def new_tap() -> None:
    """In a fork of the process that watches: use a tap of its own, which no other fork reads or removes."""
    for one in _watching:
        one.tap = Tap()
        os.environ.update(one.tap.environ)


def show(where: Iterable[object], *outputs: object) -> None:
    """Pass on the output of a process, if somebody watches; `where` are its arguments."""
    if not _watching:
        return
    name = " ".join(map(str, where))
    for output in outputs:
        if isinstance(output, str | bytes):  # else it was not captured
            _watching[0].show(f"the output of {name}", output)
