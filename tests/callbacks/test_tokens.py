"""Tokens: what is genuine, and what it is good for."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci_live_audit import ConfigurationError
from ci_live_audit.callbacks.tokens import Tokens

OLD, NEW, OTHER = "the old secret of ours", b"the new secret of ours", "somebody else's secret"


def test_a_token_is_good_for_its_stream() -> None:
    """It covers its own data_id, with or without white space around it, and no other."""
    tokens = Tokens(OLD)
    grant = tokens.grant(f"/hooks/{tokens.sign('room 7')}")
    assert grant is not None
    assert grant.covers("room 7")
    assert grant.covers(" room 7\n")
    assert not any(map(grant.covers, (None, "", "room", "room 70", "Room 7", "7")))


def test_a_token_without_a_stream_is_good_for_all() -> None:
    """Who asks for no data_id has one URL for all streams."""
    tokens = Tokens(OLD)
    grant = tokens.grant(tokens.sign(None))
    assert grant is not None
    assert grant.covers(None)
    assert grant.covers("room7")


def test_a_stream_cannot_have_the_token_for_all() -> None:
    """No data_id gives the token that is good for all, not even that of blanks only."""
    tokens = Tokens(OLD)
    for data_id in (" ", "\n", "any", "ci_live_audit.callbacks.any\0"):
        grant = tokens.grant(tokens.sign(data_id))
        assert grant is not None
        assert not grant.covers("room7")


def test_a_token_shows_neither_stream_nor_secret() -> None:
    """It is 64 hexadecimal digits, others for each stream and each secret."""
    signed = {Tokens(secret).sign(data_id) for secret in (OLD, NEW) for data_id in ("a", "b", None)}
    assert len(signed) == 6
    assert all(re.fullmatch(r"[0-9a-f]{64}", token) for token in signed)
    assert len({half for token in signed for half in (token[:32], token[32:])}) == 12


def test_secrets_rotate() -> None:
    """The first of several secrets signs, and tokens of all are accepted."""
    both = Tokens([NEW, OLD])
    assert both.sign("a") == Tokens(NEW).sign("a") == Tokens(NEW.decode()).sign("a")
    for tokens in (Tokens(NEW), Tokens(OLD)):
        grant = both.grant(tokens.sign("a"))
        assert grant is not None
        assert (grant.covers("a"), grant.covers("b")) == (True, False)
    assert both.grant(Tokens(OTHER).sign("a")) is None


def test_all_secrets_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many comparisons are made whichever secret it is: the time does not tell."""
    compared: list[bool] = []
    compare: Callable[[Any, Any], bool] = hmac.compare_digest

    def counting(one: Any, other: Any) -> bool:
        compared.append(True)
        return compare(one, other)

    tokens = Tokens([NEW, OLD, OTHER])
    made = [Tokens(secret).sign("a") for secret in (NEW, OLD, OTHER, "none of those is it")]
    monkeypatch.setattr(hmac, "compare_digest", counting)
    for token in made:
        compared.clear()
        tokens.grant(token)
        assert len(compared) == 3


@pytest.mark.parametrize("before", ["", "/", "/a/b/", "//", "https://example.com/", "/\u623f/"])
@pytest.mark.parametrize("after", ["", "/", "//", "?a=b", "/?a=b/c"])
def test_a_token_ends_its_path(before: str, after: str) -> None:
    """It is found under any path, with a slash or a query after it, and percent-encoded."""
    tokens = Tokens(OLD)
    token = tokens.sign("a")
    every = "".join(f"%{ord(one):02x}" for one in token)
    for spelled in (token, every):
        assert tokens.grant(before + spelled + after) is not None
    assert tokens.grant(quote(before, safe=":/") + token + after) is not None


def test_other_paths_are_not_genuine() -> None:
    """Nothing else is accepted: no part of a token, none with something before or after it."""
    tokens = Tokens(OLD)
    token = tokens.sign("a")
    for path in (
        *("", "/", "?", token[:63], token + "0", token[32:], 2 * token, f"x{token}", f"{token}x"),
        *(f"{token}\n", f"{token}%0a", f"{token}/x", f"{token}%2fx", token.upper(), f"?{token}"),
        *(f"#{token}", f"%{token}", token.replace(token[0], "\uff10"), 64 * "\u0660", 64 * "0"),
    ):
        assert tokens.grant(path) is None, path


@given(st.text(st.characters()))
def test_any_other_path_is_none(path: str) -> None:
    """Whatever a path is, it is no token, and no exception."""
    assert Tokens(OLD).grant(path) is None


@pytest.mark.parametrize(
    "secret",
    [
        *("", b"", [], (), [""], [OLD, ""], [OLD, None], None),
        *(7, {OLD: OLD}, {OLD}, iter([OLD]), bytearray(OLD.encode()), [[OLD]], object()),
    ],
)
def test_bad_secrets_are_refused(secret: Any) -> None:
    """A secret that is empty or no text is an error that does not show it."""
    with pytest.raises(ConfigurationError, match=r"^secret: expected") as caught:
        Tokens(secret)
    assert OLD not in str(caught.value)


def test_any_text_or_bytes_is_a_secret() -> None:
    """Bytes of any kind are accepted, even what is not Unicode."""
    for secret in (16 * b"\0", 16 * "\0", 6 * "\ud800", 8 * "\u00e9", 16 * b"\xff"):
        tokens = Tokens(secret)
        assert tokens.grant(tokens.sign("a")) is not None
        assert not tokens.is_weak
    assert Tokens([OLD, b"15 bytes: weak!"]).is_weak
