"""`bearerd init`: writes a first config and a secret file for a provider of the menu, and shows the next steps."""

from __future__ import annotations

import os
import pwd
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

from bearerd.accounts import user_name
from bearerd.cli import questions
from bearerd.cli.answers import UsageError, all_answers, asked_secret, given_answers, secret_from
from bearerd.cli.new_files import NewFile, new_files
from bearerd.cli.next_steps import next_steps, offer_check
from bearerd.config.defaults import Defaults
from bearerd.config.here import defaults
from bearerd.config.load import load
from bearerd.config.suggest import near
from bearerd.errors import BearerdError, ConfigError
from bearerd.model import Config
from bearerd.process import write_stderr
from bearerd.providers.catalog import about, names, preset
from bearerd.providers.preset import Preset, quoted, rendered
from bearerd.reason import reason_of

CONFIG: Final = "config.yaml"
_USAGE: Final = 2
# A shorter word is in most descriptions of providers, and a longer list is no suggestion.
_SHORTEST_WORD: Final = 3
_MOST_MEANT: Final = 5
_INTERRUPTED: Final = 130  # the shells' convention: 128 + SIGINT
# Besides INT. A terminal sends QUIT for Ctrl and a backslash.
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class _Prepared:
    directory: str
    files: list[NewFile]
    secret: str
    """The path of the secret file, or an empty text."""


@dataclass(frozen=True, slots=True)
class _Written:
    config: Config
    path: str
    secret: str
    """The path of the secret file, or an empty text."""


def init(provider: str | None, directory: str | None, answers: list[str], secret_file: str | None) -> int:
    """Write both files. Returns 0, or 1 with an error, or 2 if answers are missing or wrong.

    Questions without an answer are asked if input and output are a terminal. Raises BearerdError.
    """
    terminal = questions.is_terminal()
    if terminal:
        questions.take_any_bytes()
    written: _Written | None = None
    interrupted = False
    try:
        with _ending():
            prepared = _prepare(provider, directory, answers, secret_file, terminal=terminal)
            with _signals_held():
                written = _write(prepared)
    except UsageError as error:
        write_stderr(f"bearerd: {error}")
        return _USAGE
    except (EOFError, KeyboardInterrupt) as error:
        if written is None:
            write_stderr("\nbearerd: nothing was written")
            return 1 if isinstance(error, EOFError) else _INTERRUPTED
        interrupted = True
    print(f"\nwrote {written.path}")
    if written.secret:
        print(f"wrote {written.secret}, which only {_owner_of(written.secret)} can read")
    steps = next_steps(written.config, written.path)
    print("\nNext:\n" + "\n".join(f"  {step}" for step in steps), flush=True)
    if interrupted:
        return _INTERRUPTED
    if terminal:
        offer_check(steps[0])
    return 0


def _prepare(
    provider: str | None, directory: str | None, given: list[str], secret_file: str | None, *, terminal: bool
) -> _Prepared:
    chosen = _chosen(provider, terminal=terminal)
    known = defaults(os.environ)
    directory = _directory(directory, known)
    _refuse_existing(directory, CONFIG)
    _refuse_foreign(directory)
    if terminal:
        questions.show(f"{chosen.title}\n\n{_plain(chosen.notes)}")
        print()
    content = secret_from(chosen, secret_file) if secret_file is not None else None
    answers = all_answers(chosen, given_answers(chosen, given), has_secret=content is not None, terminal=terminal)
    name = chosen.secret_file(answers)
    files: list[NewFile] = []
    if chosen.secret:
        _refuse_existing(directory, name)
        files.append(NewFile(name, content or asked_secret(chosen.secret), 0o600, _service_user()))
    secret_path = os.path.join(directory, name) if name else ""
    text = rendered(chosen, answers, secret_path, _output(directory, known))
    # Others may read the config: it has no secret, and the daemon may run as another user.
    files.append(NewFile(CONFIG, text.encode(), 0o644))
    return _Prepared(directory, files, secret_path)


def _plain(notes: str) -> str:
    """Notes without the marks of Markdown."""
    return re.sub(r"`([^`]*)`|\*([^*]*)\*", r"\1\2", notes)


def _write(prepared: _Prepared) -> _Written:
    directory = prepared.directory
    try:
        with new_files(directory, 0o755 if os.geteuid() == 0 else 0o700, prepared.files) as temporary:
            config = _loaded(temporary[-1])
    except FileExistsError as error:
        raise BearerdError(_exists(directory, str(error.filename2 or error.filename))) from None
    except OSError as error:
        raise BearerdError(f"{directory}: {reason_of(error)}; use --directory for another place") from None
    return _Written(config, os.path.join(directory, CONFIG), prepared.secret)


def _chosen(provider: str | None, *, terminal: bool) -> Preset:
    known = names()
    if provider is None and terminal:
        print("Providers:")
        provider = questions.choose({name: preset(name).title for name in known})
        print()
    if provider is None:
        raise UsageError(f"init needs a PROVIDER, one of {', '.join(known)}")
    if provider not in known:
        found = about(provider) if len(provider) >= _SHORTEST_WORD else []
        some = f"; did you mean {' or '.join(map(repr, found))}?" if 0 < len(found) <= _MOST_MEANT else ""
        meant = some or near(provider, known) or f"; it knows {', '.join(known)}."
        raise UsageError(
            f"init does not know the provider '{provider}'{meant} 'other' and 'other-issuer' are for any provider with "
            "an id and a secret"
        )
    return preset(provider)


# -- where ---------------------------------------------------------------------------------------------


def _directory(given: str | None, known: Defaults) -> str:
    try:
        directory = os.path.abspath(os.path.expanduser(given)) if given else known.config_directory
    except FileNotFoundError:
        raise UsageError("--directory: the current directory no longer exists; use an absolute path") from None
    if directory is None:
        raise UsageError(
            "$HOME is not set, or is not a directory of this user: use --directory, and -c for other commands"
        )
    if not directory.isprintable():
        raise UsageError("--directory: expected a path of printable characters")
    return directory


def _output(directory: str, known: Defaults) -> str:
    """The output directory, if the default is not one of this user."""
    if os.geteuid() == 0 or known.own_directory or os.environ.get("RUNTIME_DIRECTORY"):
        return ""
    tokens = f"{known.own_state or directory}/tokens"
    return (
        "# $XDG_RUNTIME_DIR is not set to a directory of this user, so the tokens are on disk, for this user only.\n"
        f'output: {{directory: {quoted(tokens)}, directory_mode: "0700", mode: "0600"}}'
    )


def _refuse_existing(directory: str, name: str) -> None:
    if os.path.lexists(os.path.join(directory, name)):
        raise BearerdError(_exists(directory, name))


def _refuse_foreign(directory: str) -> None:
    """Refuse a directory of another user, who could replace the config, and so control what the daemon runs."""
    while not os.path.exists(directory) and directory != "/":
        directory = os.path.dirname(directory)
    uid = os.stat(directory).st_uid
    if uid not in {os.geteuid(), 0, _service_user()}:
        raise BearerdError(
            f"{directory} belongs to the user {user_name(uid)}, who could replace the files; nothing was written. Run "
            "init as that user, or use --directory for another place"
        )


def _exists(directory: str, name: str) -> str:
    return (
        f"{os.path.join(directory, name)} exists, and init overwrites nothing; nothing was written. Move it away, or "
        "use --directory for another place. To add a provider to a config, copy the client from there into it"
    )


def _service_user() -> int:
    """The user that the installed service runs as, for root; -1: this user."""
    if os.geteuid() != 0:
        return -1
    try:
        return pwd.getpwnam("bearerd").pw_uid
    except KeyError:
        return -1


def _owner_of(path: str) -> str:
    uid = os.stat(path).st_uid
    return "this user" if uid == os.geteuid() else f"the user {user_name(uid)}"


def _loaded(path: str) -> Config:
    """The written config, proven by reading it as the daemon will."""
    try:
        return load(path, os.environ)
    except ConfigError as error:
        # An answer that no single question can refuse, such as a path that two files would have.
        why = "; ".join(dict.fromkeys(problem.message or problem.kind for problem in error.problems))
        raise UsageError(f"with these answers the config has errors: {why}; nothing was written") from None


@contextmanager
def _signals_held() -> Iterator[None]:
    """Deliver signals afterwards, so that either both files are written or none."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *_ENDS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _ending() -> Iterator[None]:
    """Let these signals unwind the stack, so that the terminal is restored and nothing half-written stays."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
