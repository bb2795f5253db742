"""Key pairs that must show nowhere, and where to look for them."""

from __future__ import annotations

import traceback
from types import SimpleNamespace

from ci_live_audit.credentials.values import Credentials

ID, KEY, TOKEN = "AKIDcanary", "canary-key", "canary-token"
PAIR = Credentials(ID, KEY)
TRIPLE = Credentials(ID, KEY, TOKEN)


def plain(credentials: Credentials) -> SimpleNamespace:
    """A credential object as other libraries have it."""
    return SimpleNamespace(
        secret_id=credentials.secret_id,
        secret_key=credentials.secret_key,
        token=credentials.token,
    )


def chain(error: BaseException | None) -> list[BaseException]:
    """The error and all that it carries along, shown in a traceback or not."""
    errors: list[BaseException] = []
    while error is not None and error not in errors:
        errors.append(error)
        error = error.__cause__ or error.__context__
    return errors


def said(error: BaseException) -> str:
    """All that a program might write about an error, but for the values of local variables."""
    texts = [f"{problem}\n{problem!r}" for problem in chain(error)]
    return "\n".join([*texts, *traceback.format_exception(error)])


def captured(error: BaseException) -> str:
    """What an error tracker collects: the local variables of all frames but the test's own."""
    assert error.__traceback__ is not None
    frames = error.__traceback__.tb_next
    return "".join(
        traceback.TracebackException(type(error), error, frames, capture_locals=True).format()
    )
