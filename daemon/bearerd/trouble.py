"""What is wrong with a target or the daemon, what still holds, and what to do, in words. Pure.

The one source of these words for `bearerd status`, its JSON and the page. Times in them are RFC 3339, after `until`,
`at`, `since` or `of`: `timeformat.spoken` turns them into local times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Literal, NamedTuple, assert_never

from bearerd.grant.outcome import Failure, Malformed, Phase, RateLimited, Refused, Transient, Unsent
from bearerd.share.types import ShareView
from bearerd.target_status import HELD, TargetStatus
from bearerd.terms import Instant, WhenUnavailable
from bearerd.timeformat import rfc3339


@dataclass(frozen=True, slots=True)
class Trouble:
    """One line about a target, or the daemon, that is not well."""

    failed: str
    holds: str
    """What can still be relied on, and until when."""
    do: str

    @property
    def line(self) -> str:
        """All of it in one line."""
        parts = self.failed, self.holds[:1].upper() + self.holds[1:], f"To do: {self.do}"
        return " ".join(f"{part.rstrip('.')}." for part in parts)

    def document(self) -> dict[str, str]:
        """Its fields and its line, for JSON."""
        return {"failed": self.failed, "holds": self.holds, "do": self.do, "line": self.line}


class _Fault(NamedTuple):
    failed: str
    do: str
    what: str = "refresh"
    """What the advice is about: the refresh, or a file, a template or a hook by its name."""


def trouble_of(status: TargetStatus, hook_error: str | None, now: Instant) -> Trouble | None:
    """What is wrong with a target; None if it is well."""
    good = status.expires is not None and status.expires + status.grace > now.boot
    if good and status.held_by == "share":  # another daemon is about to replace it
        status = replace(status, held_by="")
    if good and not (status.failure or status.held_by or status.faults or hook_error):  # most are well
        return None
    refresh = list(_of_refresh(status, now))
    files, hooks = list(_of_files(status)), list(_of_hooks(hook_error))
    lost = status.expires is None or status.expires <= now.boot
    # Without a valid token, its refresh comes first.
    faults = [*refresh, *files, *hooks] if lost else [*files, *refresh, *hooks]
    starting = status.expires is None and not (status.failure or status.held_by)
    then = _next(status, now) if refresh and not starting else ""
    failed = "; ".join(dict.fromkeys(fault.failed for fault in faults))
    return Trouble(failed, _holds(status, now), _advice(faults) + then)


def _advice(faults: Iterable[_Fault]) -> str:
    """What to do about all of them. With different advice, each part names what it is about."""
    about: dict[str, list[str]] = {}
    for fault in faults:
        about.setdefault(fault.do, []).append(fault.what)
    if len(about) == 1:
        return next(iter(about))
    return "; ".join(f"{', '.join(dict.fromkeys(whats))}: {do}" for do, whats in about.items())


def _when(moment: float, now: Instant) -> str:
    return rfc3339(now.wall + (moment - now.boot))


def _split(message: str, do: str) -> _Fault:
    """A message in its two parts: what happened, and after a semicolon what to do; `do` if it does not say that.

    What it is about comes before the first colon.
    """
    failed, _, advice = message.partition("; ")
    return _Fault(failed, advice or do, failed.partition(": ")[0])


# -- what still holds --------------------------------------------------------------------------------


def _holds(status: TargetStatus, now: Instant) -> str:
    if status.expires is None:
        if status.ended is None:
            return "there is no valid token"
        return f"there is no valid token: the last one expired at {_when(status.ended, now)}"
    expiry = _when(status.expires, now)
    if status.expires + status.grace <= now.boot:
        if status.target.on_expiry == "remove" and not status.faults:
            return f"there is no valid token: the last one expired at {expiry}, and its files are removed"
        return f"there is no valid token: the last one expired at {expiry}, and its files still contain it"
    if status.on_disk:
        return f"the current token is good until {expiry}"
    if not status.faults:
        return f"the current token is good until {expiry}, and is being written to its files"
    if status.previous_until > now.boot:
        return f"the previous token in the files is good until {_when(status.previous_until, now)}"
    if status.previous_until:
        there = "its file still contains" if len(status.target.outputs) == 1 else "a file still contains"
        return (
            f"the new token is good until {expiry}, but {there} one that expired at {_when(status.previous_until, now)}"
        )
    return f"the current token is good until {expiry}, but not in all of its files"


# -- its refresh -------------------------------------------------------------------------------------


def _of_refresh(status: TargetStatus, now: Instant) -> Iterator[_Fault]:
    failure, hold = status.failure, status.held_by
    if failure is not None:
        failed, do, _ = _said(failure, status)
        if status.attempts > 1 and status.failing_since is not None:
            failed += f", {status.attempts} attempts since {_when(status.failing_since, now)}"
        if hold and not (hold == "refused" and isinstance(failure, Refused)):
            failed += f"; held: {HELD[hold]}"
        yield _Fault(failed, do)
    elif hold:
        yield _Fault(f"held: {HELD[hold]}", _HELD_DO[hold])
    elif status.expires is None:
        yield _Fault("its first request is still in progress", "wait")
    elif status.expires + status.grace <= now.boot:
        yield _Fault("no new token arrived in time", "wait")


def _next(status: TargetStatus, now: Instant) -> str:
    """When bearerd tries again, as the last part of what to do."""
    if status.next_refresh == inf:
        return "; next attempt when a request in flight has ended"
    if status.next_refresh <= 0:
        return ""
    at = _when(status.next_refresh, now)  # compared as text: RFC 3339 in UTC sorts by time
    return "; next attempt now" if at <= rfc3339(now.wall) else f"; next attempt at {at}"


_HELD_DO: Final = {
    "refused": "correct the error that the client's other tokens show",
    "half_open": "wait",
    "refused_limit": "wait: more refused attempts could lock the account",
    "retry_budget": "wait; if it lasts, ask the provider",
    "rate_limit": "wait, or raise rate_limit if the provider allows more",
    "concurrency": "wait, or raise max_concurrency if the provider allows more",
    "unknown_client": "wait",
    "share": "wait",
    "share_unavailable": "see the line about the share",
}
_AT_ONCE: Final = "; a changed secret or config is tried at once"


def _said(failure: Failure, status: TargetStatus) -> _Fault:
    """A failure, and what to do about it."""
    if isinstance(failure, Unsent):
        return _unsent(failure)
    do = failure.hint or usual_advice(failure)
    if isinstance(failure, Malformed):
        do += ("" if failure.hint else _ONLINE) + _AT_ONCE
    elif isinstance(failure, Refused) and not failure.another_secret:
        do += _RESTART if _by_variable(status) else _AT_ONCE
    return _Fault(failure.reason, do)


def usual_advice(failure: Failure) -> str:
    """What helps with this kind of failure, for one without a hint. Empty if its message says what to do."""
    match failure:
        case Unsent():
            return ""
        case Transient():
            slow = failure.phase in {"wait", "read"} and "timed out" in failure.reason
            return f"{_WAIT}, or raise timeout" if slow else _TRANSIENT_DO.get(failure.phase, _WAIT)
        case RateLimited():
            return "wait; if it recurs, set rate_limit to what the provider allows"
        case Malformed():
            return "check that token_url matches the provider's settings"
        case Refused():
            return (
                _WAIT if failure.another_secret else "check that the client and its scope match the provider's settings"
            )
        case _:
            assert_never(failure)


_WAIT: Final = "wait; if it lasts, ask the provider"
_TRANSIENT_DO: Final[dict[Phase, str]] = {
    "name look-up": "check the host's name and this machine's DNS",
    "connect": "check the network and the firewalls on the way",
    "TLS": "check the host's name, and whether a proxy intercepts TLS",
}
_ONLINE: Final = "; bearerd check --online shows what came back"
_RESTART: Final = "; a changed variable needs a restart"
_CORRECT: Final = "correct it" + _AT_ONCE


def _by_variable(status: TargetStatus) -> bool:
    """Whether the client's credentials are in the environment, which cannot change while the daemon runs."""
    return any(reference.kind == "env" for reference in status.target.client.client_secret)


def _unsent(failure: Unsent) -> _Fault:
    """Nothing was sent."""
    do, of_secret = failure.advice, failure.phase == "secret"
    if not do and of_secret:
        do = "correct it; bearerd check shows whether it can be used"
    elif not do:
        do = "install it, and restart bearerd" if "not installed" in failure.message else _CORRECT
    elif of_secret and failure.message.startswith("file ") and "too many open files" not in failure.message:
        do += _AT_ONCE
    failed, do, _ = _split(failure.message, do)
    return _Fault(failed, do)


# -- its files and hooks -----------------------------------------------------------------------------


def _of_files(status: TargetStatus) -> Iterator[_Fault]:
    for fault in status.faults:
        yield _split(fault, "correct it; writing is retried every 10 s")


def _of_hooks(error: str | None) -> Iterator[_Fault]:
    # Several are one text (hooks/owed.py).
    for fault in re.split(r"; (?=hook (?:run|signal) )", error) if error else ():
        failed, do, hook = _split(fault, "correct it, and reload the program by hand")
        yield _Fault(f"{failed} (given up)", do.removeprefix("its output is not kept: "), hook)


# -- the daemon --------------------------------------------------------------------------------------


def of_records(holder: int | None) -> Trouble:
    """No daemon answers, and only its records are known; `holder`: the pid of one that runs nevertheless."""
    holds = "the expiry times are from the records; the token files were not checked"
    if holder is None:
        return Trouble("no daemon refreshes these tokens", holds, "start bearerd; its log says why it ended")
    return Trouble(
        f"bearerd runs as pid {holder}, but does not answer",
        holds,
        "wait 10 s, after which it has restored a removed socket; if it still does not answer, its log says why",
    )


def of_record(expired: str | None, holder: int | None) -> Trouble:
    """A token from a record that is not good, without an answer of a daemon (see `of_records`).

    `expired` is when it expired, None if it is unknown.
    """
    do = "start bearerd" if holder is None else f"see the log of pid {holder}"
    if expired is None:
        failed = "its record cannot be read, or was written by another version"
        return Trouble(failed, "there is no valid token", do)
    failed = "no daemon refreshed it" if holder is None else "it was not refreshed"
    return Trouble(failed, f"there is no valid token: the last one expired at {expired}", do)


def of_schedule() -> Trouble:
    """The scheduler does not work."""
    return Trouble(
        "the scheduler's heartbeat is stale: no token is refreshed",
        "the files stay as they are, and their tokens will expire",
        "restart bearerd, which continues with its valid tokens; and report this bug",
    )


def of_config(error: str, do: str, loaded: str) -> Trouble:
    """A newer config is not in use, with its errors in lines; `loaded` is when the config in use was loaded."""
    first, *more = error.split("\n")
    rest = f" (and {len(more)} more)" if more else ""
    return Trouble(f"the new config was refused: {first}{rest}", f"the config loaded at {loaded} stays in use", do)


StateKind = Literal["lock", "ledger", "secrets"]
_STATE_HOLDS: Final[dict[StateKind, str]] = {
    "lock": "tokens are refreshed as before, but a second daemon could start in this directory",
    "ledger": "tokens are refreshed as before, but refusals and used rate limits are forgotten at a restart",
    "secrets": "tokens are refreshed as before, but all secrets of a client are tried again after a restart",
}


def of_state(kind: StateKind, fault: str) -> Trouble:
    """The lock, the ledger, or the notes which secrets work, cannot be written; `fault` has the path and the reason."""
    failed, do, _ = _split(fault, "correct it")
    # Most of these errors end with the next write. Some, such as those at the start, do not.
    return Trouble(failed, _STATE_HOLDS[kind], do if kind == "lock" else f"{do}; if this line stays, restart bearerd")


# Seconds for which an error of a share that is up is shown, while no token waits for it: as often as the log repeats
# lasting failures. Nothing tells when it is over: an entry that cannot be opened stays until another one replaces it.
_SHARE_ERROR: Final = 600.0


def of_share(view: ShareView, policies: Mapping[str, WhenUnavailable], now: Instant) -> Trouble | None:
    """What is wrong with a share; None if it is well. `policies`: by client, what to do while it is down."""
    if view.state == "down":
        fault = _split(view.error, "check the server and the network")
        failed = f"share {view.name} has been unavailable since {_when(view.since, now)}: {fault.failed}"
        return Trouble(failed, _without_share(policies), f"{fault.do}; bearerd reconnects by itself")
    if view.error_at is None or view.error_at <= view.since:
        return None
    if now.boot - view.error_at > _SHARE_ERROR and not view.waiting:
        return None
    fault = _split(view.error, "correct it")
    failed = f"share {view.name}: {fault.failed}, at {_when(view.error_at, now)}"
    holds = "valid tokens stay in use, and this daemon requests by itself what it cannot share"
    return Trouble(failed, _without_share(policies) if view.waiting else holds, fault.do)


def _without_share(policies: Mapping[str, WhenUnavailable]) -> str:
    alone = [client for client, policy in policies.items() if policy == "alone"]
    wait = [client for client, policy in policies.items() if policy == "wait"]
    by_itself, late = "this daemon refreshes {} by itself", "{} are refreshed only shortly before they expire"
    if alone and wait:
        tokens = f"the tokens of {', '.join(alone)}", f"those of {', '.join(wait)}"
        return f"valid tokens stay in use; {by_itself.format(tokens[0])}, and {late.format(tokens[1])}"
    return f"valid tokens stay in use, and {late.format('they') if wait else by_itself.format('them')}"
