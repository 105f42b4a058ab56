from __future__ import annotations

import socket

import pytest

from bearerd.grant.addresses import MOST_ADDRESSES, REMEMBERED_FOR, Address, Winners, in_order

PLACE, OTHER = ("sso.example", 443), ("sso.example", 8443)


def six(number: int) -> Address:
    return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"2001:db8::{number}", 443, 0, 0))


def four(number: int) -> Address:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{number}", 443))


@pytest.mark.parametrize(
    ("found", "order"),
    [
        pytest.param([], [], id="none"),
        pytest.param([six(1), six(2), four(1), four(2)], [six(1), four(1), six(2), four(2)], id="by-turns"),
        pytest.param([four(1), six(1), six(2)], [four(1), six(1), six(2)], id="the-first-family-first"),
        pytest.param([six(1), six(2), six(3), four(1)], [six(1), four(1), six(2), six(3)], id="one-is-used-up"),
        pytest.param([four(1), four(1), four(2)], [four(1), four(2)], id="each-once"),
    ],
)
def test_families_alternate(found: list[Address], order: list[Address]) -> None:
    assert in_order(found, None) == order


def test_a_remembered_address_comes_first_if_the_name_still_has_it() -> None:
    assert in_order([six(1), six(2), four(1)], four(1)) == [four(1), six(1), six(2)]
    assert in_order([six(1), four(1)], four(9)) == [six(1), four(1)]


def test_addresses_that_failed_come_last_and_the_last_to_fail_at_the_end() -> None:
    found = [six(1), six(2), four(1), four(2)]

    assert in_order(found, None, [four(1), six(1), six(9)]) == [six(2), four(2), four(1), six(1)]
    assert in_order(found, six(1), [six(1)]) == [four(1), six(2), four(2), six(1)]
    assert in_order([six(1), six(2)], None, [six(2), six(1)]) == [six(2), six(1)]


def test_only_the_first_addresses_of_a_name_are_tried() -> None:
    found = [six(number) for number in range(2000)] + [four(1)]

    assert len(in_order(found, None)) == MOST_ADDRESSES
    assert in_order(found, None)[1] == four(1)
    assert in_order(found, six(1999))[0] == six(1999)


def test_a_winner_is_remembered_for_ten_minutes_from_its_first_win() -> None:
    winners = Winners()
    winners.won(PLACE, four(1), 100.0)
    # That it was tried first is why it won again.
    winners.won(PLACE, four(1), 500.0)

    assert winners.preferred(PLACE, 100.0 + REMEMBERED_FOR - 1) == four(1)
    assert winners.preferred(OTHER, 100.0) is None
    assert winners.preferred(PLACE, 100.0 + REMEMBERED_FOR) is None

    winners.won(PLACE, four(1), 800.0)
    assert winners.preferred(PLACE, 1399.0) == four(1)


def test_another_winner_replaces_it_and_a_failure_forgets_it() -> None:
    winners = Winners()
    winners.won(PLACE, four(1), 0.0)
    winners.won(OTHER, four(2), 0.0)
    winners.won(PLACE, six(1), 1.0)
    assert winners.preferred(PLACE, 2.0) == six(1)

    winners.forget(PLACE)
    winners.forget(PLACE)
    assert winners.preferred(PLACE, 2.0) is None
    assert winners.preferred(OTHER, 2.0) == four(2)


def test_a_failure_after_connecting_is_remembered_for_ten_minutes_from_the_last_one() -> None:
    winners = Winners()
    winners.won(PLACE, four(1), 0.0)
    for address, now in ((four(1), 1.0), (six(1), 2.0), (four(1), 3.0)):
        winners.lost(PLACE, address, now)
    winners.lost(OTHER, four(2), 4.0)

    assert winners.preferred(PLACE, 4.0) is None
    assert winners.failed(PLACE, 4.0) == [six(1), four(1)]
    assert winners.failed(PLACE, 2.0 + REMEMBERED_FOR) == [four(1)]
    assert winners.failed(PLACE, 3.0 + REMEMBERED_FOR) == []
