"""Credentials: which are accepted, and what they show."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from keys import ID, KEY, PAIR, TOKEN, TRIPLE, said

from ci_live_audit.credentials.values import Credentials, Secret
from ci_live_audit.errors import CredentialsError


@pytest.mark.parametrize("token", [None, TOKEN])
def test_credentials_hold_what_they_were_given(token: str | None) -> None:
    """Id, key and token are plain texts to whoever signs with them."""
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
def test_what_no_header_can_carry_is_refused_unseen(name: str, value: Any) -> None:
    """The message names the argument and its fault, and never quotes the value."""
    arguments: dict[str, Any] = {"secret_id": ID, "secret_key": KEY, name: value}
    with pytest.raises(CredentialsError, match=rf"\A{name}: expected ") as caught:
        Credentials(**arguments)
    assert "canary" not in said(caught.value)


@pytest.mark.parametrize("name", ["secret_id", "secret_key"])
def test_id_and_key_are_needed(name: str) -> None:
    """None stands for no token, and for nothing else."""
    arguments: dict[str, Any] = {"secret_id": ID, "secret_key": KEY, name: None}
    with pytest.raises(CredentialsError, match=rf"\A{name}: expected a text, got NoneType\Z"):
        Credentials(**arguments)


@pytest.mark.parametrize("value", ["1700000000", "soon", [5], b"5"], ids=repr)
def test_an_end_is_a_number(value: Any) -> None:
    """A text from some JSON is refused here, not by a TypeError at the second request."""
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
def test_credentials_do_not_show_themselves(show: Callable[[Credentials], str]) -> None:
    """Neither as a whole nor taken apart."""
    assert "canary" not in show(TRIPLE)
    assert "'***'" in show(TRIPLE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_credentials_are_not_pickled(protocol: int) -> None:
    """They do not leave the process by accident, and the message says what to do instead."""
    with pytest.raises(TypeError, match="pass what provides them"):
        pickle.dumps(TRIPLE, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_credentials_can_be_copied(duplicate: Callable[[Credentials], Credentials]) -> None:
    """A copied configuration keeps its credentials: nothing leaves the process."""
    assert duplicate(TRIPLE) == TRIPLE


def test_credentials_are_values() -> None:
    """They are compared by what they hold, and do not change."""
    assert Credentials(ID, KEY, TOKEN) == TRIPLE != PAIR
    assert {Credentials(ID, KEY, TOKEN)} == {TRIPLE}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        TRIPLE.token = None  # type: ignore[misc]


def test_a_secret_is_its_text_except_to_repr() -> None:
    """It equals, hashes and is sent as its text."""
    secret = Secret(KEY)
    assert secret == KEY
    assert hash(secret) == hash(KEY)
    assert (str(secret), secret.encode()) == (KEY, KEY.encode())
    assert repr(secret) == "'***'"


def test_a_part_of_a_secret_is_a_secret() -> None:
    """Tools that show the beginning of a long text show nothing of a secret."""
    assert repr(Secret("canary" * 20)[:80]) == "'***'"
