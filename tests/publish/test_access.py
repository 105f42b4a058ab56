from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from bearerd.publish.access import Class, Component, Entry, Reader, Right, acl_of, describe, inherited, stops

OWNER, MEMBER, BOTH, STRANGER, ROOT = (
    Reader("owner", 1000, frozenset({1000})),
    Reader("member", 2000, frozenset({2000, 50})),
    Reader("both", 1000, frozenset({1000, 50})),
    Reader("stranger", 3000, frozenset({3000})),
    Reader("root", 0, frozenset({0})),
)
FILE = Component("/run/t", 0o640, 1000, 50, "owner", "readers", made=True)


def judged(component: Component, right: Right, reader: Reader) -> Class | None:
    """The class that denies a reader access to a component; None if it is granted."""
    found = stops([component], None, reader) if right == "x" else stops([], component, reader)
    return found[0].judged_as if found else None


@pytest.mark.parametrize(
    ("mode", "right", "reader", "stopped_as"),
    [
        (0o400, "r", OWNER, None),
        (0o377, "r", OWNER, "owner"),
        (0o040, "r", MEMBER, None),
        (0o737, "r", MEMBER, "group"),
        (0o004, "r", STRANGER, None),
        (0o773, "r", STRANGER, "others"),
        # The first class that fits decides, whatever a later one is granted.
        (0o077, "r", OWNER, "owner"),
        (0o047, "r", BOTH, "owner"),
        (0o707, "r", MEMBER, "group"),
        (0o100, "x", OWNER, None),
        (0o010, "x", MEMBER, None),
        (0o001, "x", STRANGER, None),
        # To go through a directory r is neither needed nor enough.
        (0o711, "x", STRANGER, None),
        (0o744, "x", STRANGER, "others"),
        (0o766, "x", MEMBER, "group"),
        (0o677, "x", OWNER, "owner"),
        # The other bits are no rights.
        (0o7000, "r", OWNER, "owner"),
        (0o7000, "x", STRANGER, "others"),
        (0o000, "r", ROOT, None),
        (0o000, "x", ROOT, None),
    ],
)
def test_one_class_of_the_mode_decides(mode: int, right: Right, reader: Reader, stopped_as: Class | None) -> None:
    assert judged(replace(FILE, mode=mode), right, reader) == stopped_as


def test_every_group_of_the_reader_counts() -> None:
    component = replace(FILE, mode=0o040)
    for groups, stopped_as in (({50}, None), ({1, 2, 50}, None), ({51}, "others"), (set(), "others")):
        assert judged(component, "r", Reader("x", 2000, frozenset(groups))) == stopped_as


def test_every_denial_on_the_path_is_reported_in_order() -> None:
    way = [replace(FILE, path=path, mode=mode) for path, mode in (("/", 0o755), ("/a", 0o750), ("/a/b", 0o700))]
    file = replace(FILE, path="/a/b/t", mode=0o644)
    assert [(stop.component.path, stop.right) for stop in stops(way, file, STRANGER)] == [("/a", "x"), ("/a/b", "x")]
    assert [stop.component.path for stop in stops(way, replace(file, mode=0o600), MEMBER)] == ["/a/b", "/a/b/t"]
    # Of a way that is not seen to its end.
    assert [stop.component.path for stop in stops(way[:2], None, STRANGER)] == ["/a"]
    assert stops(way, file, OWNER) == stops(way, file, ROOT) == ()


# -- ACLs ----------------------------------------------------------------------------------------------

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 2**32 - 1


def acl(*, user: int = 7, group: int = 0, mask: int = 7, other: int = 0, **named: int) -> tuple[Entry, ...]:
    """`u3000=4` and `g50=4` name a user and a group."""
    users = [Entry(USER, rights, int(name[1:])) for name, rights in named.items() if name[0] == "u"]
    groups = [Entry(GROUP, rights, int(name[1:])) for name, rights in named.items() if name[0] == "g"]
    return (
        Entry(USER_OBJ, user, NOBODY),
        *users,
        Entry(GROUP_OBJ, group, NOBODY),
        *groups,
        Entry(MASK, mask, NOBODY),
        Entry(OTHER, other, NOBODY),
    )


@pytest.mark.parametrize(
    ("entries", "reader", "stopped_as"),
    [
        pytest.param(acl(u3000=4), STRANGER, None, id="a-named-user"),
        pytest.param(acl(u3000=4, mask=3), STRANGER, "user", id="the-mask-takes-from-a-named-user"),
        pytest.param(acl(u3000=0, other=4), STRANGER, "user", id="a-named-user-is-not-one-of-the-others"),
        pytest.param(acl(u2000=0, group=4), MEMBER, "user", id="a-named-user-is-not-one-of-a-group"),
        pytest.param(acl(user=0, u1000=4), OWNER, "owner", id="the-owner-is-not-a-named-user"),
        pytest.param(acl(user=4, mask=1), OWNER, None, id="the-mask-takes-nothing-from-the-owner"),
        pytest.param(acl(g3000=4), STRANGER, None, id="a-named-group"),
        pytest.param(acl(g3000=4, mask=3), STRANGER, "group", id="the-mask-takes-from-a-named-group"),
        pytest.param(acl(group=0, g2000=4), MEMBER, None, id="any-of-several-groups"),
        pytest.param(acl(group=0, g2000=0, other=4), MEMBER, "group", id="none-of-several-groups"),
        pytest.param(acl(group=4, mask=3), MEMBER, "group", id="the-mask-takes-from-the-group"),
        pytest.param(acl(g9=4, u9=4), STRANGER, "others", id="named-are-others"),
        pytest.param(acl(other=4, mask=1), STRANGER, None, id="the-mask-takes-nothing-from-others"),
    ],
)
def test_an_acl_decides_before_the_mode(entries: tuple[Entry, ...], reader: Reader, stopped_as: Class | None) -> None:
    # The group bits of the mode show the mask.
    (mask,) = (entry.rights for entry in entries if entry.tag == MASK)
    assert judged(replace(FILE, mode=0o700 | mask << 3, acl=entries), "r", reader) == stopped_as


def test_an_acl_whose_mask_grants_nothing_is_ignored() -> None:
    entries = acl(u3000=0, mask=0, other=4)
    assert judged(replace(FILE, mode=0o604, acl=entries), "r", STRANGER) is None
    assert judged(replace(FILE, mode=0o704, acl=acl(u2000=7, mask=0, other=4)), "r", MEMBER) == "group"


def test_an_acl_is_read_in_the_format_of_the_kernel() -> None:
    kept = struct.pack("<I", 2) + struct.pack("<HHI", USER_OBJ, 6, NOBODY) + struct.pack("<HHI", USER, 4, 1000)
    assert acl_of(kept) == (Entry(USER_OBJ, 6, NOBODY), Entry(USER, 4, 1000))
    assert acl_of(kept[:4]) == ()


def test_new_files_inherit_a_default_acl_masked_by_their_mode() -> None:
    made = inherited(acl(user=7, u3000=5, group=5, mask=7, other=5), 0o2640)
    assert made == acl(user=6, u3000=5, group=5, mask=4, other=0)
    # One that names nobody leaves no more than a mode.
    assert inherited([Entry(USER_OBJ, 7, NOBODY), Entry(GROUP_OBJ, 5, NOBODY), Entry(OTHER, 0, NOBODY)], 0o640) == ()
    assert inherited([], 0o640) == ()


# -- words ---------------------------------------------------------------------------------------------


def words(component: Component, right: Right, reader: Reader) -> str:
    """The message about the only denial."""
    (stop,) = stops([component], None, reader) if right == "x" else stops([], component, reader)
    return describe(stop, reader)


THERE = replace(FILE, path="/run/d", mode=0o750, made=False)
MADE = replace(THERE, made=True)
OUTSIDE = "user stranger is neither its owner nor in its group, and others lack"
LEFT = "(bearerd does not change existing directories)"


@pytest.mark.parametrize(
    ("component", "right", "reader", "said"),
    [
        pytest.param(
            THERE,
            "x",
            STRANGER,
            f"/run/d (owner:readers 0750): {OUTSIDE} x; add user stranger to the group "
            f"readers, or chmod o+x /run/d {LEFT}",
            id="there",
        ),
        pytest.param(
            replace(THERE, gid=0, group="root"),
            "x",
            STRANGER,
            f"/run/d (owner:root 0750): {OUTSIDE} x; chmod o+x /run/d {LEFT}",
            id="root-group",
        ),
        pytest.param(
            replace(THERE, mode=0o2700),
            "x",
            STRANGER,
            f"/run/d (owner:readers 2700): {OUTSIDE} x; chmod o+x /run/d {LEFT}",
            id="nor-a-group-that-may-not-either",
        ),
        pytest.param(
            replace(THERE, mode=0o701),
            "x",
            MEMBER,
            f"/run/d (owner:readers 0701): user member is in its group, and the group lacks x; chmod g+x /run/d {LEFT}",
            id="the-group",
        ),
        pytest.param(
            replace(THERE, mode=0o070),
            "x",
            OWNER,
            f"/run/d (owner:readers 0070): user owner is its owner, and the owner lacks x; chmod u+x /run/d {LEFT}",
            id="the-owner",
        ),
        pytest.param(
            replace(THERE, acl=acl(u3000=0, group=5)),
            "x",
            STRANGER,
            "/run/d (owner:readers 0750+): its ACL does not grant x to user stranger; setfacl -m u:stranger:x /run/d",
            id="by-an-acl",
        ),
        pytest.param(
            replace(THERE, mode=0o070, acl=acl(user=0)),
            "x",
            OWNER,
            f"/run/d (owner:readers 0070+): user owner is its owner, and the owner lacks x; chmod u+x /run/d {LEFT}",
            id="the-owner-whatever-the-acl",
        ),
        pytest.param(
            MADE,
            "x",
            STRANGER,
            f"/run/d (as bearerd creates it, owner:readers 0750): {OUTSIDE} x; add "
            "user stranger to the group readers, or set output.group to a group of user stranger",
            id="made",
        ),
        pytest.param(
            replace(MADE, mode=0o700),
            "x",
            STRANGER,
            f"/run/d (as bearerd creates it, owner:readers 0700): {OUTSIDE} x; set "
            "output.group to a group of user stranger and output.directory_mode to one with g+x",
            id="made-for-the-owner-alone",
        ),
        pytest.param(
            replace(MADE, mode=0o701),
            "x",
            MEMBER,
            "/run/d (as bearerd creates it, owner:readers 0701): user member is in its group, and the group lacks x; "
            "set output.directory_mode to one with g+x",
            id="made-not-for-the-group",
        ),
        pytest.param(
            replace(MADE, acl=acl(group=5, mask=5)),
            "x",
            STRANGER,
            f"/run/d (as bearerd creates it, owner:readers 0750+): {OUTSIDE} x; setfacl -d -m u:stranger:rx /run",
            id="made-with-an-acl",
        ),
        pytest.param(
            FILE,
            "r",
            STRANGER,
            f"/run/t (owner:readers 0640): {OUTSIDE} r; add user stranger to the group "
            "readers, or set the file's group to a group of user stranger",
            id="file",
        ),
        pytest.param(
            replace(FILE, mode=0o600),
            "r",
            STRANGER,
            f"/run/t (owner:readers 0600): {OUTSIDE} r; set the file's owner "
            "to stranger, or its group to a group of user stranger and its mode to one with g+r",
            id="file-for-its-owner",
        ),
        pytest.param(
            replace(FILE, mode=0o604),
            "r",
            MEMBER,
            "/run/t (owner:readers 0604): user member is in its group, and the group lacks r; set mode to one with g+r",
            id="file-not-for-its-group",
        ),
        pytest.param(
            replace(FILE, path="/t", acl=acl(group=4, mask=4)),
            "r",
            STRANGER,
            f"/t (owner:readers 0640+): {OUTSIDE} r; setfacl -d -m u:stranger:rx /",
            id="file-with-an-acl",
        ),
        pytest.param(
            replace(FILE, mode=0o600, acl=acl(u3000=4, mask=0)),
            "r",
            STRANGER,
            f"/run/t (owner:readers 0600+): {OUTSIDE} r; set the file's owner "
            "to stranger, or its group to a group of user stranger and its mode to one with g+r",
            id="file-whose-mode-leaves-nothing-of-its-acl",
        ),
    ],
)
def test_each_denial_is_reported_with_what_to_do(component: Component, right: Right, reader: Reader, said: str) -> None:
    assert words(component, right, reader) == said
