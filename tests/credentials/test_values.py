"""Credentials: which values are accepted, and that they reveal nothing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from keys import ID, KEY, PAIR, TOKEN, TRIPLE, printed

from ci_live_audit.credentials.values import Credentials, Secret
from ci_live_audit.errors import CredentialsError


@pytest.mark.parametrize("token", [None, TOKEN])
def test_credentials_hold_their_values(token: str | None) -> None:
    """Id, key, token and expiry are returned as they were given."""
    credentials = Credentials(ID, KEY, token, expires_at=5.0)
    assert (credentials.secret_id, credentials.secret_key) == (ID, KEY)
    assert (credentials.token, credentials.expires_at) == (token, 5.0)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "canary key", " canary", "canary ", "canary\n", "canary\r\nX: y", "canary\0"),
        *("canary\t", "canary\x7f", "canary\u00e9", "canary\u0661", "canary\u200b", "\ud800canary"),
        *(b"canary", 5, True, ["canary"], {"canary": 1}, Path("canary")),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("name", ["secret_id", "secret_key", "token"])
def test_a_value_that_no_header_can_carry_is_refused(name: str, value: Any) -> None:
    """The message names the argument and its fault, and does not quote the value."""
    arguments: dict[str, Any] = {"secret_id": ID, "secret_key": KEY, name: value}
    with pytest.raises(CredentialsError, match=rf"\A{name}: expected ") as caught:
        Credentials(**arguments)
    assert "canary" not in printed(caught.value)


@pytest.mark.parametrize("name", ["secret_id", "secret_key", "token"])
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        *((f"{quote}canary{quote}", "quotes around them") for quote in "\"'`"),
        *(('"canary', "quotes around them"), ("canary'", "quotes around them")),
        *((f" canary{end}", "blanks or line breaks around them") for end in ("", " ", "\n")),
        *((text, "blanks or line breaks around them") for text in ("canary ", "canary\r\n")),
        *((text, "placeholder") for text in ("${CANARY}", "$CANARY", "$(canary)", "${a:-canary}")),
        *((text, "placeholder") for text in ("{{canary}}", "%CANARY%", "<your-canary>")),
    ],
    ids=ascii,
)
def test_a_value_that_was_copied_wrongly_is_refused(name: str, value: str, fault: str) -> None:
    """Quotes, blanks and placeholders are named for what they are, without the value."""
    arguments: dict[str, Any] = {"secret_id": ID, "secret_key": KEY, name: value}
    with pytest.raises(CredentialsError, match=rf"\A{name}: expected .*{fault}") as caught:
        Credentials(**arguments)
    assert "canary" not in printed(caught.value).lower()


@pytest.mark.parametrize("name", ["secret_id", "secret_key"])
def test_id_and_key_are_required(name: str) -> None:
    """None is accepted for the token only."""
    arguments: dict[str, Any] = {"secret_id": ID, "secret_key": KEY, name: None}
    with pytest.raises(CredentialsError, match=rf"\A{name}: expected a text, got NoneType\Z"):
        Credentials(**arguments)


@pytest.mark.parametrize("value", ["1700000000", "soon", [5], b"5"], ids=repr)
def test_an_expiry_is_a_number(value: Any) -> None:
    """An expiry that is a text is refused at once, not by a TypeError in a later request."""
    with pytest.raises(CredentialsError, match=r"\Aexpires_at: "):
        Credentials(ID, KEY, TOKEN, expires_at=value)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r}".format,
        lambda credentials: repr(attrs.asdict(credentials)),
        lambda credentials: repr(attrs.astuple(credentials)),
        lambda credentials: repr(attrs.evolve(credentials, expires_at=5.0)),
        lambda credentials: repr([credentials.secret_id, credentials.secret_key]),
        lambda credentials: repr({"token": credentials.token}),
    ],
)
def test_credentials_do_not_show_their_secrets(show: Callable[[Credentials], str]) -> None:
    """Neither credentials nor their parts show key or token."""
    assert "canary" not in show(TRIPLE)
    assert "'***'" in show(TRIPLE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_credentials_are_not_pickled(protocol: int) -> None:
    """Pickling credentials is an error that says what to do instead."""
    with pytest.raises(TypeError, match="pass what provides them"):
        pickle.dumps(TRIPLE, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_credentials_can_be_copied(duplicate: Callable[[Credentials], Credentials]) -> None:
    """A copy of credentials equals them: nothing leaves the process."""
    assert duplicate(TRIPLE) == TRIPLE


def test_credentials_are_values() -> None:
    """Credentials compare and hash by value, and are immutable."""
    assert Credentials(ID, KEY, TOKEN) == TRIPLE != PAIR
    assert {Credentials(ID, KEY, TOKEN)} == {TRIPLE}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        TRIPLE.token = None  # type: ignore[misc]


def test_a_secret_is_its_text_except_in_repr() -> None:
    """A secret equals, hashes, prints and encodes as its text."""
    secret = Secret(KEY)
    assert secret == KEY
    assert hash(secret) == hash(KEY)
    assert (str(secret), secret.encode()) == (KEY, KEY.encode())
    assert repr(secret) == "'***'"


def test_a_part_of_a_secret_is_a_secret() -> None:
    """Tools that show the start of a long text show nothing of a secret."""
    assert repr(Secret("canary" * 20)[:80]) == "'***'"
