from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bearerd.grant.lifetime import read_lifetime, valid_after
from bearerd.terms import LifetimeUnit
from support.clock import START

NOW = START.wall  # 2027-01-15T08:00:00Z
DAY = 86400.0
# Not 3600, so that the default differs from the lifetimes in replies.
DEFAULT = 1234.0
NO_LIFETIME = "the reply names no lifetime: default_lifetime (1234 s) is used"
NONSENSE = "the lifetime in the reply is not plausible: default_lifetime (1234 s) is used"


def implausible(number: float, advice: str = "") -> str:
    return f"expires_in {number:.0f} is not plausible: default_lifetime (1234 s) is used{advice}"


def ms(number: int, field: str = "expires_in") -> str:
    """The note about a number that was read as milliseconds: it gives both readings."""
    said = f"{field} {number} was read as milliseconds: {number / 1000:.0f} s, not {number} s"
    return f"{said}; if that is wrong, set lifetime_unit: seconds"


def jwt(claims: Any) -> str:
    """A JWT with these claims; nobody verifies its signature."""
    middle = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return f"eyJhbGciOiJSUzI1NiJ9.{base64.urlsafe_b64encode(middle).rstrip(b'=').decode()}.c2ln"


@pytest.mark.parametrize(
    ("expires_in", "seconds", "note"),
    [
        pytest.param(3600, 3600, None, id="int"),
        pytest.param(3599.5, 3599.5, None, id="float"),
        pytest.param("3600", 3600, None, id="string-paypal"),
        pytest.param("3599.5", 3599.5, None, id="string-float"),
        pytest.param(0.001, 0.001, None, id="tiny"),
        pytest.param(-1, -1, None, id="negative"),
        pytest.param("-5", -5, None, id="negative-string"),
        pytest.param(0, DEFAULT, NO_LIFETIME, id="zero-mailchimp"),
        pytest.param("0", DEFAULT, NO_LIFETIME, id="zero-string"),
        pytest.param(None, DEFAULT, NO_LIFETIME, id="null"),
        pytest.param("", DEFAULT, NO_LIFETIME, id="empty"),
        pytest.param(True, DEFAULT, NONSENSE, id="bool"),
        pytest.param("NaN", DEFAULT, NONSENSE, id="nan"),
        pytest.param("Infinity", DEFAULT, NONSENSE, id="infinity"),
        pytest.param("-inf", DEFAULT, NONSENSE, id="minus-infinity"),
        pytest.param("1e999", DEFAULT, NONSENSE, id="string-over-float"),
        pytest.param(10**400, DEFAULT, NONSENSE, id="int-over-float"),
        pytest.param("one hour", DEFAULT, NONSENSE, id="words"),
        pytest.param([3600], DEFAULT, NONSENSE, id="list"),
        pytest.param({"seconds": 3600}, DEFAULT, NONSENSE, id="object"),
        pytest.param(3_600_000, 3600, ms(3_600_000), id="ms-postman"),
        pytest.param("3600000", 3600, ms(3_600_000), id="ms-string"),
        pytest.param(NOW + 3600, 3600, "expires_in was read as a Unix time: 3600 s", id="unix-deliverect"),
        pytest.param(
            (NOW + 3600) * 1000, 3600, "expires_in was read as a Unix time in milliseconds: 3600 s", id="unix-ms"
        ),
        pytest.param(30 * DAY, 30 * DAY, None, id="30-days"),
        pytest.param(30 * DAY + 1, 2592.001, ms(30 * 86400 + 1), id="30-days-and-a-tick"),
        pytest.param(10**9, 10**6, ms(10**9), id="10^9"),
        # A moment of 2001: it has passed, which is for the caller to refuse.
        pytest.param(
            10**9 + 1, 10**9 + 1 - NOW, "expires_in was read as a Unix time: -799999999 s", id="10^9-and-a-tick"
        ),
        pytest.param(10**12, DEFAULT, implausible(10**12), id="10^12"),
        pytest.param(
            10**12 + 1,
            10**9 - NOW,
            "expires_in was read as a Unix time in milliseconds: -800000000 s",
            id="10^12-and-a-tick",
        ),
        pytest.param(
            NOW + 366 * DAY, 366 * DAY, "expires_in was read as a Unix time: 31622400 s", id="unix-in-366-days"
        ),
        pytest.param(
            NOW + 366 * DAY + 1,
            DEFAULT,
            implausible(NOW + 366 * DAY + 1, "; if it is milliseconds (1831622 s), set lifetime_unit: milliseconds"),
            id="unix-in-366-days-and-a-tick",
        ),
        pytest.param(
            5_184_000_000,
            DEFAULT,
            implausible(5_184_000_000, "; if it is milliseconds (5184000 s), set lifetime_unit: milliseconds"),
            id="60-days-in-ms",
        ),
        pytest.param(
            366 * DAY * 1000,
            DEFAULT,
            implausible(
                366 * DAY * 1000, f"; if it is milliseconds ({366 * DAY:.0f} s), set lifetime_unit: milliseconds"
            ),
            id="366-days-in-ms",
        ),
        pytest.param(366 * DAY * 1000 + 1, DEFAULT, implausible(366 * DAY * 1000 + 1), id="more-than-366-days-in-ms"),
        pytest.param(10**15, DEFAULT, implausible(10**15), id="10^15"),
        pytest.param(10**15 + 1, DEFAULT, NONSENSE, id="10^15-and-a-tick"),
        pytest.param(10**18, DEFAULT, NONSENSE, id="absurd"),
    ],
)
def test_expires_in_is_read_in_every_format_in_use(expires_in: Any, seconds: float, note: str | None) -> None:
    lifetime = read_lifetime({"expires_in": expires_in}, "opaque", NOW, DEFAULT)

    assert lifetime.seconds == pytest.approx(seconds)
    assert lifetime.note == note


def test_of_several_fields_the_first_with_a_number_is_called_implausible() -> None:
    lifetime = read_lifetime({"expires_in": "soon", "expires": 10**15}, "opaque", NOW, DEFAULT)
    assert lifetime.note == implausible(10**15).replace("expires_in", "expires")


@pytest.mark.parametrize(
    ("expires_in", "claims", "seconds"),
    [
        pytest.param(90 * DAY, {"iat": NOW, "exp": NOW + 90 * DAY}, 90 * DAY, id="seconds-though-over-30-days"),
        pytest.param(1_800_000, {"iat": NOW, "exp": NOW + 1800}, 1800, id="ms-though-under-30-days"),
        pytest.param(1_800_000, {"iat": NOW * 1000, "exp": (NOW + 1800) * 1000}, 1800, id="ms-in-the-jwt-too"),
        pytest.param(1_800_000, {"exp": NOW + 1800}, 1800, id="no-iat-so-from-now"),
        # By its own times these are milliseconds; and it had expired, for all we know.
        pytest.param(1_800_000, {"iat": NOW - 3600, "exp": NOW - 1800}, -1800, id="iat-of-another-clock"),
        # The clock that wrote the JWT is 50 minutes ahead: it is valid for 30 minutes, and so are these milliseconds.
        pytest.param(1_800_000, {"iat": NOW + 3000, "exp": NOW + 4800}, 1800, id="iat-of-a-clock-ahead"),
        pytest.param(1_800_000, {"iat": f"{NOW + 3000}", "exp": NOW + 4800}, 4800, id="iat-no-number"),
        pytest.param(1_140_000, {"iat": NOW, "exp": NOW + 1200}, 1140, id="60-s-off"),
        pytest.param(1_139_000, {"iat": NOW, "exp": NOW + 1200}, 1200, id="61-s-off"),
        pytest.param(9_500_000, {"iat": NOW, "exp": NOW + 10_000}, 9500, id="5-percent-off"),
        pytest.param(2_590_000, {"iat": NOW, "exp": NOW + 2800}, 2800, id="over-5-percent-off"),
        pytest.param(30, {"iat": NOW, "exp": NOW + 40}, 30, id="agrees-with-two-readings"),
        # 3.6 s is within a minute of 60 s, and would be a request every two seconds.
        pytest.param(3600, {"exp": NOW + 60}, 60, id="an-hour-is-not-few-ms"),
        pytest.param(3600, {"exp": NOW + 3}, 3, id="an-hour-though-the-jwt-has-seconds-left"),
        pytest.param(59_999, {"exp": NOW + 100}, 100, id="ms-under-a-minute"),
        pytest.param(60_000, {"exp": NOW + 100}, 60, id="ms-of-a-minute"),
        pytest.param(3600, {"iat": NOW, "exp": NOW + 8 * 3600}, 3600, id="agrees-with-none"),
        pytest.param(3600, {"iat": NOW - 3000, "exp": NOW + 600}, 600, id="a-cached-body-of-50-min"),
        pytest.param(3600, {"exp": NOW - 1}, -1, id="a-cached-body-of-a-dead-token"),
        pytest.param(3600, {"exp": 3600}, 3600, id="exp-that-is-no-moment"),
        pytest.param(3600, {"iat": -1e308, "exp": 1e308}, 3600, id="claims-that-overflow"),
        pytest.param(3600, {"iat": NOW, "exp": "soon"}, 3600, id="exp-no-number"),
    ],
)
def test_a_jwts_own_expiry_decides_between_readings(expires_in: float, claims: dict[str, Any], seconds: float) -> None:
    assert read_lifetime({"expires_in": expires_in}, jwt(claims), NOW, DEFAULT).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        pytest.param({"expiresIn": 600}, 600, id="expiresIn-dnb-direct"),
        pytest.param({"expiresIn": "600000000"}, 600_000, id="expiresIn-ms"),
        pytest.param({"expires_in": 600, "expiresIn": 700}, 600, id="expires_in-first"),
        pytest.param({"expires_in": 0, "expiresIn": 700}, 700, id="expires_in-zero"),
        pytest.param({"expires_in": 10**18, "expires_at": NOW + 700}, 700, id="expires_in-absurd"),
        pytest.param({"expires_at": NOW + 600}, 600, id="expires_at"),
        pytest.param({"expires_at": (NOW + 600) * 1000}, 600, id="expires_at-ms"),
        pytest.param({"expires_on": f"{NOW + 600:.0f}"}, 600, id="expires_on-string-entra"),
        pytest.param({"expires_at": NOW - 600}, -600, id="expires_at-past"),
        pytest.param({"expiresAt": NOW + 600}, 600, id="expiresAt"),
        pytest.param({"expires": 600}, 600, id="expires-seconds"),
        pytest.param({"expires": NOW + 600}, 600, id="expires-unix"),
        pytest.param({"expires": "2027-01-15T09:00:00Z"}, 3600, id="expires-iso"),
        pytest.param({"expires_in": "2027-01-15T09:00:00Z"}, 3600, id="expires_in-iso"),
        pytest.param({"expires_in": "2028-01-16T08:00:00Z"}, 366 * DAY, id="expires_in-iso-in-366-days"),
        pytest.param({"expires_in": "2028-01-16T08:00:01Z"}, DEFAULT, id="expires_in-iso-in-366-days-and-a-tick"),
        pytest.param({"expires_at": "2027-01-15T09:00:00Z"}, 3600, id="iso-z"),
        pytest.param({"expires_at": "2027-01-15T10:30:00+01:30"}, 3600, id="iso-offset"),
        pytest.param({"expires_on": "2027-01-15T09:00:00"}, 3600, id="iso-naive-is-utc"),
        pytest.param({"expirationDateTime": "2027-01-15T09:00:00.500Z"}, 3600.5, id="expirationDateTime-dnb-direct"),
        pytest.param({"expires_at": NOW + 366 * DAY}, 366 * DAY, id="expires_at-in-366-days"),
        pytest.param({"expires_at": NOW + 366 * DAY + 1}, DEFAULT, id="expires_at-in-366-days-and-a-tick"),
        pytest.param({"expirationDateTime": "9999-12-31T23:59:59-23:59"}, DEFAULT, id="iso-absurd"),
        pytest.param({"expires_at": "tomorrow"}, DEFAULT, id="iso-words"),
        pytest.param({"expires_at": 10**9}, DEFAULT, id="expires_at-10^9-is-no-moment"),
        pytest.param({"expires_at": 10**12}, DEFAULT, id="expires_at-10^12-is-absurd"),
        pytest.param({"expires_at": True, "expires_on": [], "expirationDateTime": {}}, DEFAULT, id="types"),
    ],
)
def test_other_fields_are_read_if_expires_in_is_missing(fields: dict[str, Any], seconds: float) -> None:
    assert read_lifetime(fields, "opaque", NOW, DEFAULT).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("token", "seconds", "note"),
    [
        pytest.param(jwt({"exp": NOW + 900}), 900, "the exp of the JWT is used", id="exp"),
        pytest.param(jwt({"exp": NOW + 366 * DAY}), 366 * DAY, "the exp of the JWT is used", id="exp-in-366-days"),
        # Base64 of each length, without its padding.
        *(
            pytest.param(
                jwt({"exp": NOW + 900, "a": "a" * more}), 900, "the exp of the JWT is used", id=f"padding-{more}"
            )
            for more in range(3)
        ),
        pytest.param(jwt({"exp": NOW + 366 * DAY + 1}), DEFAULT, NO_LIFETIME, id="exp-absurd"),
        pytest.param(jwt({"exp": True}), DEFAULT, NO_LIFETIME, id="exp-bool"),
        pytest.param(jwt({"exp": f"{NOW + 900}"}), DEFAULT, NO_LIFETIME, id="exp-string"),
        pytest.param(jwt(b'{"exp": NaN}'), DEFAULT, NO_LIFETIME, id="exp-nan"),
        pytest.param(jwt([NOW + 900]), DEFAULT, NO_LIFETIME, id="claims-a-list"),
        pytest.param(jwt(b"\xff\xfe{"), DEFAULT, NO_LIFETIME, id="claims-no-text"),
        pytest.param(jwt(b"[" * 50_000), DEFAULT, NO_LIFETIME, id="claims-nested"),
        pytest.param("a.b.c", DEFAULT, NO_LIFETIME, id="no-base64"),
        pytest.param("..", DEFAULT, NO_LIFETIME, id="two-dots"),
        pytest.param(jwt({"exp": NOW + 900}) + ".x.y", DEFAULT, NO_LIFETIME, id="five-parts-jwe"),
    ],
)
def test_the_exp_of_a_jwt_comes_before_default_lifetime(token: str, seconds: float, note: str) -> None:
    lifetime = read_lifetime({}, token, NOW, DEFAULT)

    assert lifetime.seconds == pytest.approx(seconds)
    assert lifetime.note is not None
    assert note in lifetime.note


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"expiresIn": 600}, None),
        ({"expiresIn": 3_600_000}, ms(3_600_000, "expiresIn")),
        ({"expiresIn": "soon"}, NONSENSE),
        ({"expires_at": NOW + 600}, None),
        ({"expires": "2027-01-15T09:00:00Z"}, "expires was read as a date: 3600 s"),
        ({"expires_at": "soon"}, NO_LIFETIME),
    ],
)
def test_the_note_says_how_it_was_read(fields: dict[str, Any], note: str | None) -> None:
    assert read_lifetime(fields, "opaque", NOW, DEFAULT).note == note


def test_the_exp_of_a_jwt_comes_before_an_expires_in_of_zero() -> None:
    assert read_lifetime({"expires_in": 0}, jwt({"exp": NOW + 900}), NOW, DEFAULT).seconds == pytest.approx(900)


def test_a_cached_reply_never_prolongs_a_jwt_beyond_its_exp() -> None:
    # Cognito's guide caches whole replies: exp in 10 min, expires_in still 3600.
    lifetime = read_lifetime({"expires_in": 3600}, jwt({"exp": NOW + 600}), NOW, DEFAULT)

    assert lifetime.seconds == 600
    assert lifetime.note == "the reply says 3600 s, the exp of the JWT 600 s: the shorter one is used"
    near = read_lifetime({"expires_in": 3600}, jwt({"exp": NOW + 3570}), NOW, DEFAULT)
    assert (near.seconds, near.note) == (3570, None)
    far = read_lifetime({"expires_in": 3600}, jwt({"exp": NOW + 3569}), NOW, DEFAULT)
    assert far.note == "the reply says 3600 s, the exp of the JWT 3569 s: the shorter one is used"


def test_a_jwt_that_agrees_keeps_the_note_about_the_reading() -> None:
    lifetime = read_lifetime({"expires_in": 3_600_000}, jwt({"exp": NOW + 3590}), NOW, DEFAULT)
    assert (lifetime.seconds, lifetime.note) == (3590, ms(3_600_000))


def test_an_exp_of_2001_or_before_is_no_moment() -> None:
    assert read_lifetime({}, jwt({"exp": 10**9}), 1e9 - 60, DEFAULT).seconds == DEFAULT
    assert read_lifetime({}, jwt({"exp": 10**9 + 1}), 1e9 - 60, DEFAULT).seconds == 61


def test_a_jwt_that_outlives_the_named_lifetime_is_noted() -> None:
    lifetime = read_lifetime({"expires_in": 3600}, jwt({"exp": NOW + 4000}), NOW, DEFAULT)

    assert lifetime.seconds == 3600
    assert lifetime.note == "the reply says 3600 s, the exp of the JWT 4000 s: the shorter one is used"


@pytest.mark.parametrize(
    ("fields", "token", "named"),
    [
        ({"expires_in": 3600}, "opaque", "named"),
        ({"expires_in": -5}, "opaque", "named"),
        ({"expires_at": NOW + 5}, "opaque", "named"),
        ({"expires_in": 0}, "opaque", "zero"),
        ({"expires_in": "0"}, "opaque", "zero"),
        ({"expires_in": None}, "opaque", "unnamed"),
        ({}, "opaque", "unnamed"),
        ({"expires_in": "soon"}, "opaque", "unnamed"),
        ({}, jwt({"exp": NOW + 900}), "named"),
        ({"expires_in": 0}, jwt({"exp": NOW + 900}), "named"),
    ],
)
def test_the_result_says_whether_a_lifetime_was_named(fields: dict[str, Any], token: str, named: str) -> None:
    assert read_lifetime(fields, token, NOW, DEFAULT).named == named


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"expires_in": 3600}, 3540),
        ({"expires_in": 30}, -30),
        ({"expires_in": 0.5}, -59.5),
        ({"expires_in": -5}, -5),
        ({"expires_in": 3_600_000}, 3540),
        ({"expires_in": NOW + 600}, 600),
        ({}, DEFAULT),
    ],
)
def test_the_age_of_a_cached_reply_is_subtracted(fields: dict[str, Any], seconds: float) -> None:
    assert read_lifetime(fields, "opaque", NOW, DEFAULT, age=60.0).seconds == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.floats().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    fields=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("expires_in", "expiresIn", "expires_at", "expires_on", "expirationDateTime"), JSON)
    ),
    claims=JSON | st.fixed_dictionaries({}, optional={"iat": JSON, "exp": JSON}),
)
@example(fields={"expires_at": "0001-01-01T00:00:00+23:59"}, claims=None)
@example(fields={"expires_in": 1e308}, claims={"iat": -1e308, "exp": 1e308})
def test_any_reply_gives_a_finite_lifetime_of_at_most_a_year(fields: dict[str, Any], claims: Any) -> None:
    seconds = read_lifetime(fields, jwt(claims), NOW, DEFAULT).seconds

    assert math.isfinite(seconds)
    assert seconds <= 366 * DAY


@pytest.mark.parametrize(
    ("fields", "claims", "source"),
    [
        pytest.param({"expires_in": 600}, {}, "expires_in", id="expires_in"),
        pytest.param({"expires_in": -1}, {}, "expires_in", id="expires_in-past"),
        pytest.param({"expires_in": "2100-01-01", "expires": 600}, {}, "expires", id="expires"),
        pytest.param({"expires": "2027-01-15T09:00:00Z"}, {}, "expires", id="expires-date"),
        pytest.param({"expires_on": NOW + 600}, {}, "expires_on", id="expires_on"),
        pytest.param({}, {"exp": NOW + 600}, "exp of the JWT", id="jwt"),
        pytest.param({"expires_in": 700}, {"exp": NOW + 600}, "exp of the JWT", id="jwt-shorter"),
        pytest.param({"expires_in": 500}, {"exp": NOW + 600}, "expires_in", id="jwt-longer"),
        pytest.param({"expires_in": 600}, {"exp": NOW + 600}, "expires_in", id="jwt-equal"),
        pytest.param({}, {}, "", id="none"),
        pytest.param({"expires_in": 0}, {}, "default_lifetime", id="zero"),
    ],
)
def test_a_lifetime_names_its_source(fields: dict[str, Any], claims: dict[str, Any], source: str) -> None:
    assert read_lifetime(fields, jwt(claims) if claims else "opaque", NOW, DEFAULT).source == source


@pytest.mark.parametrize(
    ("unit", "number", "seconds"),
    [
        pytest.param("seconds", 5_184_000, 5_184_000, id="60-days"),
        pytest.param("seconds", "1800000", 1_800_000, id="text"),
        pytest.param("milliseconds", 1_800_000, 1800, id="half-an-hour"),
        pytest.param("milliseconds", 3600, 3.6, id="few"),
        pytest.param("seconds", -5, -5, id="negative"),
        pytest.param("seconds", 1_800_086_400, DEFAULT, id="a-unix-time-is-not-plausible"),
    ],
)
def test_lifetime_unit_overrides_the_reading_of_a_number(unit: LifetimeUnit, number: Any, seconds: float) -> None:
    assert read_lifetime({"expires_in": number}, "opaque", NOW, DEFAULT, unit=unit).seconds == pytest.approx(seconds)


def test_a_lifetime_unit_that_leaves_less_than_a_minute_is_doubted() -> None:
    doubted = read_lifetime({"expires_in": 3600}, "opaque", NOW, DEFAULT, unit="milliseconds")
    assert doubted.note == (
        "expires_in 3600 was read as milliseconds, as lifetime_unit says: 3.6 s; if it is seconds, remove lifetime_unit"
    )
    assert read_lifetime({"expires_in": 60_000}, "opaque", NOW, DEFAULT, unit="milliseconds").note is None
    assert read_lifetime({"expires_in": 30}, "opaque", NOW, DEFAULT, unit="seconds").note is None


def test_lifetime_unit_also_applies_to_other_names_and_before_age_is_subtracted() -> None:
    lifetime = read_lifetime({"expires": 1_800_000}, "opaque", NOW, DEFAULT, age=60.0, unit="milliseconds")
    assert lifetime.seconds == pytest.approx(1740)
    assert lifetime.note is None


def test_lifetime_unit_changes_no_date_and_no_jwt() -> None:
    date = read_lifetime({"expires_in": "2001-09-09T01:46:40Z"}, "opaque", 1e9 - 60, DEFAULT, unit="milliseconds")
    assert date.seconds == pytest.approx(60)
    bounded = read_lifetime({"expires_in": 5_184_000}, jwt({"exp": NOW + 900}), NOW, DEFAULT, unit="seconds")
    assert bounded.seconds == pytest.approx(900)


@pytest.mark.parametrize(
    ("number", "doubted"),
    [
        pytest.param(1_800_000, True, id="30-minutes"),
        pytest.param(300_000, True, id="5-minutes"),
        pytest.param(604_800, False, id="7-days"),
        pytest.param(864_000, False, id="10-days-and-14.4-minutes"),
        pytest.param(2_160_000, False, id="25-days-and-36-minutes"),
        pytest.param(240_000, False, id="4-minutes"),
        pytest.param(1_799_999, False, id="no-whole-minute"),
    ],
)
def test_seconds_that_look_like_milliseconds_are_noted(number: int, doubted: bool) -> None:
    note = read_lifetime({"expires_in": number}, "opaque", NOW, DEFAULT).note or ""
    assert ("set lifetime_unit: milliseconds" in note) == doubted
    if doubted:
        assert note.startswith(f"expires_in {number} was read as seconds; if it is milliseconds ({number // 1000} s), ")
    assert read_lifetime({"expires_in": number}, "opaque", NOW, DEFAULT, unit="seconds").note is None
    assert read_lifetime({"expires_in": number}, jwt({"exp": NOW + number}), NOW, DEFAULT).note is None


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the local time differ from UTC."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_new_york")
def test_a_date_without_an_offset_is_utc_whatever_the_local_time() -> None:
    assert read_lifetime({"expires_on": "2027-01-15T09:00:00"}, "opaque", NOW, DEFAULT).seconds == 3600
    assert read_lifetime({"expires_on": "2027-01-15T10:30:00+01:30"}, "opaque", NOW, DEFAULT).seconds == 3600


@pytest.mark.parametrize(
    ("nbf", "seconds"),
    [
        pytest.param(NOW + 45, 45.0, id="ahead"),
        pytest.param(NOW, 0.0, id="now"),
        pytest.param(NOW - 5, 0.0, id="past"),
        pytest.param(NOW + 366 * DAY, 366 * DAY, id="in-366-days"),
        pytest.param(NOW + 366 * DAY + 1, 0.0, id="not-plausible"),
        pytest.param("tomorrow", 0.0, id="text"),
        pytest.param(str(NOW + 45), 0.0, id="number-as-text"),
        pytest.param(None, 0.0, id="null"),
        pytest.param(True, 0.0, id="true"),
        pytest.param([NOW + 45], 0.0, id="list"),
    ],
)
def test_a_jwt_is_valid_from_its_nbf_on(nbf: Any, seconds: float) -> None:
    assert valid_after(jwt({"nbf": nbf}), NOW) == seconds


def test_an_nbf_of_2001_or_before_is_no_moment() -> None:
    assert valid_after(jwt({"nbf": (NOW + 61) * 1000}), NOW) == 61.0  # milliseconds
    assert valid_after(jwt({"nbf": 10**9}), 1e9 - 60) == 0.0
    assert valid_after(jwt({"nbf": 10**9 + 1}), 1e9 - 60) == 61.0


def test_an_opaque_token_is_valid_at_once() -> None:
    assert valid_after("opaque", NOW) == 0.0
