"""Faults that the code of fleets could have, to show that the simulation finds them.

Some are put into the daemon, and some into the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Final

from bearerd.lifecycle.held_token import HeldToken
from bearerd.model import Target
from bearerd.publish.record import Record
from bearerd.share import fleet, policy
from bearerd.share.answers import Lock, Taken
from bearerd.share.entries import Entries
from bearerd.share.fleet import Fleet
from bearerd.share.names import names_of
from bearerd.share.server import Server
from bearerd.share.types import NEVER, Answer, Claim, Granted, Names, Stored
from simulation.faults import Mutant, Patches
from support.share_model import ModelStore


def _f1() -> Patches:
    def store(self: ModelStore, names: Names, fence: int, sealed: bytes, ttl: float) -> Stored | None:
        self._end(names, fence, self.clock())
        self.tokens[names.token] = (fence, sealed, self.clock() + ttl)
        self._forget_failures(names)
        self.announce(names)
        return None

    return [(ModelStore, "store", store)]


def _f2() -> Patches:
    claim = ModelStore.claim

    def forever(self: ModelStore, names: Names, wanted: Claim) -> Answer:
        return claim(self, names, replace(wanted, lease=inf))

    return [(ModelStore, "claim", forever)]


def _f3() -> Patches:
    return [(Server, "known", lambda _: {})]


def _f4() -> Patches:
    def look(self: Entries, have: int, _held: Callable[[], tuple[Record, float] | None]) -> Taken | None:
        stored = self.server.link.store.read(self.state.names)
        return self._open(stored, self.clock.now().boot) if stored.fence not in {NEVER, have} else None

    return [(Entries, "look", look)]


def _f5() -> Patches:
    return [(policy, "goes_alone", lambda *_, **__: True)]


def _f6() -> Patches:
    claim = ModelStore.claim

    def each_once(self: ModelStore, names: Names, wanted: Claim) -> Answer:
        self.last.clear()
        return claim(self, names, wanted)

    return [(ModelStore, "claim", each_once)]


def _f7() -> Patches:
    fail = Fleet.fail

    def secret(self: Fleet, target: Target, lock: Lock, failure: Any, wait: float, **more: bool) -> None:
        if more["refused"]:
            self.give_back(target, lock)
        else:
            fail(self, target, lock, failure, wait, **more)

    return [(Fleet, "fail", secret)]


def _f8() -> Patches:
    return [(Fleet, "keep", lambda self, target, lock, _wait: self.give_back(target, lock))]


def _f9() -> Patches:
    return [(Fleet, "fail", lambda self, target, lock, *_, **__: self.give_back(target, lock))]


def _f10() -> Patches:
    return [(policy, "own_fence", lambda seen, *_: seen + 1)]


def _f11() -> Patches:
    return [(fleet, "names_of", lambda *given: replace(names_of(*given), rates=()))]


def _f12() -> Patches:
    def unlocked(self: ModelStore, names: Names, wanted: Claim) -> Answer:
        now = self.clock()
        stored = self._token(names, now)
        if stored is not None and stored[0] > wanted.have:
            return Stored(stored[0], now, stored[1])
        return Granted(max(stored[0] if stored else 0, wanted.seen, int(now * 1e6)) + 1, now, 0, 0, governed=False)

    return [(ModelStore, "claim", unlocked)]


def _f13() -> Patches:
    claim = ModelStore.claim

    def blind(self: ModelStore, names: Names, wanted: Claim) -> Answer:
        return claim(self, names, replace(wanted, have=2**52))

    return [(ModelStore, "claim", blind)]


def _f14() -> Patches:
    adopt = HeldToken.adopt

    def undated(self: HeldToken, record: Record, *more: Any) -> Any:
        return adopt(self, replace(record, fence=0), *more)

    return [(HeldToken, "adopt", undated)]


FLEET_MUTANTS: Final = (
    Mutant("F1", "the store does not compare fences", "fleet_hosts", _f1),
    Mutant("F2", "a lock has no lease", "fleet_hosts", _f2),
    Mutant("F3", "only announcements are heard, and no poll", "fleet_mute", _f3),
    Mutant("F4", "any stored token is adopted, also an older one", "fleet_store", _f4),
    Mutant("F5", "`wait` does not wait", "fleet_ends", _f5),
    Mutant("F6", "each daemon makes a last attempt", "fleet_ill", _f6),
    Mutant("F7", "the fleet is not told of refusals", "fleet_refused", _f7),
    Mutant("F8", "the fleet is not told that the token is still the same", "fleet_same", _f8),
    Mutant("F9", "the fleet is not told of failures", "fleet_ill", _f9),
    Mutant("F10", "the fence of a token obtained alone is the next number", "fleet_store", _f10),
    Mutant("F11", "each daemon has a rate limit of its own", "fleet_limited", _f11),
    Mutant("F12", "a grant is allowed without a lock", "fleet", _f12),
    Mutant("F13", "a claim does not return a newer token", "fleet", _f13),
    Mutant("F14", "a token that is adopted has no fence", "fleet", _f14),
)
