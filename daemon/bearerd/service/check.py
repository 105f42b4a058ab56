"""Checks a valid config against this machine, and on request against its providers. Changes nothing."""

from __future__ import annotations

import os
import posixpath
import pwd
from collections.abc import Iterator, Mapping
from typing import Final

from bearerd.clock import SystemClock
from bearerd.errors import ExtraMissing, PublishError, SecretUnavailable
from bearerd.grant.certificate import expired
from bearerd.grant.credentials import header_fault
from bearerd.grant.endpoint import set_up_fault
from bearerd.grant.proxy import proxy_of
from bearerd.grant.request import Credentials, prove_signing
from bearerd.grant.socks import prove
from bearerd.hooks.run import examine
from bearerd.lifecycle.policy import lead
from bearerd.model import Client, Config, Target
from bearerd.plural import counted
from bearerd.publish.access import Reader, describe, stops
from bearerd.publish.directories import exposed, is_below, mounted
from bearerd.publish.examination import Examination
from bearerd.publish.owners import gid_of, uid_of
from bearerd.publish.reader_path import ReaderPath, ReaderPaths
from bearerd.publish.state import State
from bearerd.service.finding import Finding, finding_of
from bearerd.service.logs import quiet_libraries
from bearerd.service.online import try_online
from bearerd.service.shares import examine_shares
from bearerd.service.texts import Known, Texts, rotation
from bearerd.service.trust import writable_by_others
from bearerd.share.keys import key_fault
from bearerd.terms import Reference
from bearerd.timeformat import duration

_NO_ID: Final = 2**32 - 1  # -1 as the kernel has it


def check(config: Config, environ: Mapping[str, str], *, online: bool) -> Iterator[Finding]:
    """Check everything that the daemon needs."""
    quiet_libraries()
    examination = Examination(config)
    faults = examination.directory()
    yield from _directories(config, examination, faults)
    unusable = config.directory if faults else None
    known: Known = {}
    yield from _clients_and_tokens(config, environ, known, examination, unusable, online=online)
    yield from examine_shares(config, environ, known, online=online)


def _directories(config: Config, examination: Examination, faults: list[str]) -> Iterator[Finding]:
    """The files of the config, the directories for output, and the paths to them."""
    for path, meaning in writable_by_others((*config.sources, *config.source_directories)).items():
        yield Finding(f"config {path}", meaning, "warning")
    yield finding_of(f"directory {config.directory}", faults, "can be written")
    for path, meaning in exposed(config).items():
        yield Finding(f"directory {path}", meaning, "warning")
    uid = ReaderPaths(config).uid
    for note in examination.own_directories(uid):
        yield Finding("directory", note, "warning")
    state = State(config.state_directory, uid)
    if not (faults and is_below(config.state_directory, config.directory)):  # one cause, one failure
        yield finding_of(f"state directory {config.state_directory}", state.examine(), "can be written")
    if state.note:
        yield Finding("state directory", state.note, "warning")
    directories = {posixpath.dirname(output.path) for target in config.targets for output in target.outputs}
    checked = [config.directory, config.state_directory, *sorted(directories)]
    for note in dict.fromkeys(note for directory in checked for note in examination.way_to(directory)):
        yield Finding("path", note)


def _clients_and_tokens(
    config: Config,
    environ: Mapping[str, str],
    known: Known,
    examination: Examination,
    unusable: str | None,
    *,
    online: bool,
) -> Iterator[Finding]:
    clients = {target.client.name: target.client for target in config.targets}
    judged = {name: _judge(client, environ, known) for name, client in clients.items()}
    for name, client in clients.items():
        yield _client_finding(client, judged[name], environ)
    mounts = mounted([output.path for target in config.targets for output in target.outputs])
    able: list[Target] = []
    for target in config.targets:
        parameters = [value for _, value in target.parameters if isinstance(value, Reference)]
        texts = Texts(environ, known)
        for reference in parameters:
            texts.verbatim(reference)
        credentials = judged[target.client.name]
        tried = False
        if not (texts.faults or texts.hidden or credentials.faults or credentials.hidden):
            tried = online and all(other.client.name != target.client.name for other in able)
            able.append(target)
        details = () if tried else _only_compiled(target)
        yield from _token_findings(target, examination, unusable, mounts, texts, details)
    if online:
        yield from try_online(able, environ, examination.templates_of)


def _only_compiled(target: Target) -> tuple[tuple[str, str], ...]:
    """A detail for each template of the operator's own: without a token its fields are not known."""
    said = "only its syntax was checked; --online fills in those of the first token of each client"
    return tuple(("template", f"{output.template}: {said}") for output in target.outputs if "/" in output.template)


def _client_finding(client: Client, judged: Texts, environ: Mapping[str, str]) -> Finding:
    subject, details = f"client {client.name}", rotation(client.references, environ)
    if judged.hidden and not (judged.faults or judged.weak):
        return Finding(subject, judged.not_seen(), "warning", details)
    return finding_of(subject, judged.faults + judged.weak, _usable(client), details)


def _token_findings(
    target: Target,
    examination: Examination,
    unusable: str | None,
    mounts: Mapping[str, str],
    parameters: Texts,
    details: tuple[tuple[str, str], ...],
) -> Iterator[Finding]:
    subject, count = f"token {target.full_name}", len(target.outputs)
    hooks = [fault for hook in (*target.on_change, *target.on_failure) if (fault := examine(hook))]
    busy = [mounts[output.path] for output in target.outputs if output.path in mounts]
    faults = examination.files_of(target, without=unusable) + busy + parameters.faults + hooks
    if faults or unusable is None:
        yield finding_of(subject, faults, f"{counted(count, 'file')} can be written", details)
    if parameters.hidden:
        yield Finding(subject, parameters.not_seen(), "warning")
    if target.max_staleness and target.least_lead > lead(
        target.default_lifetime, target.refresh_before, target.least_lead
    ):
        delay = f" with publish_delay {duration(target.publish_delay)}" if target.publish_delay else ""
        yield Finding(
            subject,
            f"max_staleness {duration(target.max_staleness)}{delay} is more than half of a lifetime of "
            f"{duration(target.default_lifetime)}: with such tokens its readers could use an expired one",
            "warning",
        )


def reader_of(text: str) -> Reader:
    """A user by name or number, in all of their groups; a GROUP after a colon replaces the login group.

    This is how systemd's User= and Group= work. Raises PublishError for an unknown name. An unknown number is no error:
    it may belong to another container.
    """
    user, _, group = text.partition(":")
    uid, gid = uid_of(user), gid_of(group or None)
    if not (0 <= uid < _NO_ID and -1 <= gid < _NO_ID):
        raise PublishError("no user or group can have this number")
    try:
        known = pwd.getpwuid(uid) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return Reader(user, uid, frozenset({gid} - {-1}))
    login = known.pw_gid if gid == -1 else gid
    return Reader(known.pw_name, uid, frozenset({login, *os.getgrouplist(known.pw_name, login)}))


def readable(config: Config, reader: Reader) -> Iterator[Finding]:
    """Whether a user can read each file as bearerd will write it, through the directories as they are."""
    paths = ReaderPaths(config)
    guessed = False
    for target in config.targets:
        for output in target.outputs:
            subject = f"file {output.path} as {reader.name}"
            try:
                way = paths.of(output)
            except PublishError as error:
                yield Finding(subject, str(error), "failed")
            else:
                yield _read_by(reader, way, subject)
                guessed = guessed or way.guessed
    if reader.uid != 0 and guessed:
        yield Finding(
            f"as {reader.name}",
            f"the daemon's user is not known; this assumes {paths.daemon}, the user of this check",
            "warning",
        )
    if reader.uid != 0 and not reader.groups:
        yield Finding(
            f"as {reader.name}",
            f"not a user of this machine, so without any group; add one with --as {reader.name}:GROUP",
            "warning",
        )


def _read_by(reader: Reader, way: ReaderPath, subject: str) -> Finding:
    stopped: dict[str, str] = {}
    for stop in stops(way.directories, way.file, reader):
        # All directories that bearerd makes have the same permissions, so one of them is enough.
        alike = "made" if stop.component.made and stop.right == "x" else stop.component.path
        stopped.setdefault(alike, describe(stop, reader))
    if stopped:
        first, *others = stopped.values()
        details = [("then", other) for other in others]
        # Someone may have changed the existing file by hand.
        if way.now and str(way.now) != str(way.file):
            details.append(("now", f"{way.now}, until the next token"))
        return Finding(subject, first, "failed", tuple(details))
    if way.file is None:
        here = way.directories[-1].path
        said = f"not known: this user is not allowed to look into {here}; run the check as root"
        return Finding(subject, said, "failed", known=False)
    acls = [component.path for component in (*way.directories, way.file) if component.acl]
    return Finding(subject, f"can be read ({way.file})" + (f", by the ACL of {', '.join(acls)}" if acls else ""))


def _usable(client: Client) -> str:
    """The credentials that could be read, as the config names them."""
    named = ", ".join(map(str, client.references))
    if named:
        return f"{named} can be used"
    return "no credentials but its client_id" if client.client_id else "no credentials are configured"


def _judge(client: Client, environ: Mapping[str, str], known: Known) -> Texts:
    """Read everything that a client authenticates with, and try it as far as that is possible without a request."""
    texts = Texts(environ, known)
    if isinstance(client.client_id, Reference):
        texts.verbatim(client.client_id)
    secrets = [texts.verbatim(reference) for reference in client.client_secret]
    if client.share is not None and client.share.key is None:
        read = zip(client.client_secret, secrets, strict=True)
        faults = [key_fault(reference, secret, of_client=True) for reference, secret in read if secret]
        texts.weak = [fault for fault in faults if fault]
    private_key, certificate = texts.parsed(client.private_key), texts.parsed(client.certificate)
    texts.verbatim(client.assertion)
    login = client.provider.proxy_login
    proxy = proxy_of(client.provider, texts.verbatim(login.password) if login else "")
    if proxy is not None and proxy.is_socks and (fault := prove(proxy)):
        texts.faults.append(fault)
    for name, value in dict.fromkeys((*client.headers, *client.provider.headers)):
        if isinstance(value, Reference) and (text := texts.verbatim(value)) and (fault := header_fault(name, text)):
            texts.faults.append(f"{value}: {fault}")
    if not texts.faults and not texts.hidden:
        found = [
            _signing_fault(client, Credentials("", secret, private_key, certificate, str(reference)))
            for reference, secret in zip(client.client_secret or (None,), secrets or [""], strict=True)
        ]
        # A missing extra is one fault, however many secrets there are.
        texts.faults += dict.fromkeys(fault for fault in found if fault)
    trust = set_up_fault(client.provider, "", "")
    if trust:
        texts.faults.append(trust)
        return texts
    # Those of the provider are used for its metadata. They are often the client's too.
    pairs = [(one.tls_certificate, one.tls_private_key) for one in (client, client.provider)]
    for of_certificate, of_key in dict.fromkeys(pairs):
        certificate, private_key = texts.parsed(of_certificate), texts.parsed(of_key)
        if certificate and private_key:
            named = (str(of_certificate), str(of_key))
            fault = set_up_fault(client.provider, certificate, private_key, named)
            fault = fault or expired(certificate, named[0], SystemClock().now().wall)
            texts.faults += [fault] if fault else []
    return texts


def _signing_fault(client: Client, held: Credentials) -> str | None:
    """Why a client cannot sign its assertions."""
    try:
        prove_signing(client, held)
    except (SecretUnavailable, ExtraMissing) as error:
        return str(error)
    return None
