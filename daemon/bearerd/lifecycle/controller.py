"""Drives one target to its desired state, one turn at a time.

A turn is level-triggered: it compares the actual with the desired state and acts on the difference. It handles, in this
order, the wishes since the last turn, a step of the clock, a grant if one is due and admission allows it, the files,
and the log. It returns when the next turn is needed. An extra turn costs only a check.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import assert_never

from bearerd.grant.outcome import Refused
from bearerd.lifecycle import policy
from bearerd.lifecycle.attempts import Attempts
from bearerd.lifecycle.file_state import FileState
from bearerd.lifecycle.lines import Line
from bearerd.lifecycle.parts import Parts
from bearerd.lifecycle.wishes import CredentialsChanged, Leftover, RefreshRequested, TemplateChanged, Wish
from bearerd.model import Output, Target
from bearerd.target_status import Hold, TargetStatus
from bearerd.terms import Instant

Paths = Callable[[], Collection[str]]
"""Returns the paths of all wanted files at the time of the call."""


class Controller:
    """Keeps one target's token and files current. One thread at a time may call `reconcile`."""

    __slots__ = ("_attempts", "_files", "_parts", "_resumed", "target")

    def __init__(self, target: Target, parts: Parts) -> None:
        self.target = target
        self._parts = parts
        self._attempts = Attempts(target, parts)
        self._files = FileState(parts.publisher, parts.hooks)
        self._resumed = False

    # -- a turn --------------------------------------------------------------------------------

    def reconcile(self, target: Target, wishes: Iterable[Wish], wanted_paths: Paths) -> float:
        """Do everything that is due. Returns when (boot clock) the next turn is needed.

        `wanted_paths` are those of all targets. A file in it belongs to a target, and is never removed.
        """
        if not self._resumed:
            self._resume()
        if target is not self.target and target != self.target:
            self._adopt(target, wanted_paths)
        for wish in wishes:
            self._take_wish(wish, wanted_paths)
        attempts, clock = self._attempts, self._parts.clock
        if attempts.correct_times(clock.now()):
            self._files.times_changed()
        self._attempt_if_due()
        now = clock.now()
        self._reconcile_files(now)
        self._run_on_failure_if_lost(now.boot)
        self._files.still_failing(self.target, now.boot)
        line = attempts.log.still_failing(now.boot, attempts.state.remaining(now.boot), attempts.next)
        if line is not None:
            attempts.say(line)
        in_files, waiting = attempts.token.in_files, attempts.token.waiting
        may_be_lost = in_files.current is not None and not attempts.log.expiry_logged
        return policy.next_moment(
            now.boot,
            attempts.next_turn(),
            in_files.lost_at() if may_be_lost else None,
            waiting.at if waiting is not None else None,
            self._files.next_attempt(now.boot),
            attempts.log.next_line(),
        )

    def withdraw(self, wishes: Iterable[Wish], wanted_paths: Paths) -> None:
        """Remove the record and files of a target that is no longer wanted, except files that another target owns."""
        self._files.forget(self.target)
        for old in (self.target, *(wish.target for wish in wishes if isinstance(wish, Leftover))):
            self._withdraw(old.outputs, wanted_paths)
        self._attempts.withdraw()

    # -- for other threads, at any time ----------------------------------------------------------

    def is_newer(self, instead_of: str | None) -> bool:
        """Whether all files hold a valid token that differs from the one with this digest."""
        return self._files.on_disk and self._attempts.is_newer(instead_of)

    def replaces(self, instead_of: str | None) -> bool:
        """Whether a newer token than the one with this digest waits for its publication, or could not be written."""
        return self._attempts.token.replaces(instead_of) or self._attempts.is_newer(instead_of)

    def lost_record(self) -> bool:
        """Whether the record of its token was removed."""
        return self._attempts.state.current is not None and self._files.lost_record(self.target)

    def refresh_hold(self) -> Hold | None:
        """What would delay a refresh requested now; None if nothing does."""
        return self._attempts.refresh_hold()

    def status(self) -> TargetStatus:
        """A snapshot of the target."""
        attempts, files, waiting = self._attempts, self._files, self._attempts.token.waiting
        state, held, log = attempts.token.in_files, attempts.current_hold(), attempts.log
        token, failure = state.current, log.failure
        if held is not None and failure is None and held.reason == "refused":
            refusal = attempts.refusal()
            failure = refusal.outcome if refusal else None
        return TargetStatus(
            target=self.target,
            obtained=token.obtained.boot if token else None,
            expires=state.ends if token else None,
            ended=state.ends if state.stale else None,
            grace=state.grace,
            on_disk=files.on_disk,
            failure=failure,
            due=attempts.due,
            next_refresh=attempts.next,
            held_by=held.reason if held is not None else "",
            held_until=held.until if held is not None else 0.0,
            limited_until=attempts.limited_until,
            failures=log.moments,
            attempts=log.attempts,
            failing_since=log.since if log.failure is not None else None,
            faults=files.faults,
            readable_until=files.readable_until,
            previous_until=files.previous_until,
            outcomes=attempts.outcomes,
            fleet_grants=attempts.fleet_grants,
            same_token=attempts.same,
            zero=attempts.state.zero,
            publish_at=waiting.at if waiting is not None else None,
        )

    # -- steps of a turn -----------------------------------------------------------------------

    def _resume(self) -> None:
        """Take over the record of an earlier process."""
        record = self._files.load(self.target)
        if self._attempts.resume(record, self._parts.clients.client_id(self.target)):
            self._files.times_changed(at_start=True)
        if record is not None and record.waits and self._attempts.token.waiting is None:
            self._files.token_changed()  # the wait was over before this process started
        self._resumed = True

    def _adopt(self, target: Target, wanted_paths: Paths) -> None:
        """Apply a changed config. After an exception, the next turn applies it again."""
        self._files.config_changed(self.target, target)
        self._withdraw(self.target.outputs, wanted_paths)
        self._attempts.adopt(target)
        self.target = target

    def _take_wish(self, wish: Wish, wanted_paths: Paths) -> None:
        match wish:
            case CredentialsChanged():
                self._attempts.credentials_changed()
            case TemplateChanged():
                self._files.template_changed()
            case RefreshRequested(instead_of=instead_of):
                waited = self._attempts.token.waiting
                self._attempts.request(instead_of)
                if self._attempts.token.waiting is not waited:
                    self._files.record_changed()
            case Leftover(target=old):
                self._withdraw(old.outputs, wanted_paths)
            case _:
                assert_never(wish)

    def _attempt_if_due(self) -> None:
        """Make an attempt if one is due, and note what then has to be written."""
        attempts, clock = self._attempts, self._parts.clock
        before, waited, fence = attempts.state, attempts.token.waiting, attempts.token.fence
        try:
            attempts.run()
            if attempts.state.token is not before.token:
                attempts.look()  # the process may have been paused since the reply: by now there may be a newer token
            if attempts.token.publish_if_due(clock.now().boot) and attempts.record is not None:
                attempts.say(Line("info", "the new token is published"))
        finally:
            # Even after an exception: for the next turn, a token that was taken is no change.
            if attempts.state.token is not before.token or attempts.token.waiting is not waited:
                self._files.token_changed()
            elif (attempts.state.unsure, attempts.state.sliding, attempts.state.named, attempts.token.fence) != (
                before.unsure,
                before.sliding,
                before.named,
                fence,
            ):
                self._files.record_changed()

    def _withdraw(self, outputs: Iterable[Output], wanted_paths: Paths) -> None:
        """Remove those of these files that no target wants."""
        taken = wanted_paths()
        self._files.withdraw(self.target, [output for output in outputs if output.path not in taken])

    def _reconcile_files(self, now: Instant) -> None:
        attempts, record, in_files = self._attempts, self._attempts.record, self._attempts.token.in_files
        if in_files.current is None or now.boot >= in_files.lost_at():
            self._files.expire(self.target)
        waiting = attempts.token.waiting
        if waiting is not None and record is not None and (now.boot >= in_files.lost_at() or not waiting.own):
            self._files.keep(self.target, record)
        elif in_files.current is not None and now.boot >= in_files.lost_at():
            removed, wait = self.target.on_expiry == "remove", attempts.next - now.boot
            if (line := attempts.log.expired(attempts.hindrance(), wait, removed=removed)) is not None:
                attempts.say(line)
        elif in_files.current is not None and record is not None:  # else the old token stays until the new one is there
            self._files.publish(self.target, record, in_files.lost_at())

    def _run_on_failure_if_lost(self, now: float) -> None:
        """Run `on_failure` once per lasting failure."""
        attempts = self._attempts
        failure = attempts.log.failure
        count = attempts.log.count(failure) if failure is not None else 0
        if isinstance(failure, Refused) or (attempts.held is not None and attempts.held.reason == "refused"):
            refusal = attempts.refusal()
            if refusal is not None:
                failure, count = refusal.outcome, refusal.attempts
        expired = attempts.state.current is not None and now >= attempts.state.lost_at()
        if attempts.log.is_lost(failure, count, now, attempts.state.remaining(now), expired=expired):
            self._parts.hooks.failed(self.target)
