"""Key pairs that must not leak, and the texts in which they might."""

from __future__ import annotations

import traceback
from types import SimpleNamespace

from ci_live_audit.credentials.values import Credentials

ID, KEY, TOKEN = "AKIDcanary", "canary-key", "canary-token"
PAIR = Credentials(ID, KEY)
TRIPLE = Credentials(ID, KEY, TOKEN)


def plain(credentials: Credentials) -> SimpleNamespace:
    """Return a credential object like those of other libraries."""
    return SimpleNamespace(
        secret_id=credentials.secret_id,
        secret_key=credentials.secret_key,
        token=credentials.token,
    )


def chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and its causes and contexts, shown in a traceback or not."""
    errors: list[BaseException] = []
    while error is not None and error not in errors:
        errors.append(error)
        error = error.__cause__ or error.__context__
    return errors


def printed(error: BaseException) -> str:
    """Return what a program might write about an error, without local variables."""
    texts = [f"{problem}\n{problem!r}" for problem in chain(error)]
    return "\n".join([*texts, *traceback.format_exception(error)])


def with_locals(error: BaseException) -> str:
    """Return what an error tracker collects: the local variables of all frames but the test's."""
    assert error.__traceback__ is not None
    frames = error.__traceback__.tb_next
    return "".join(
        traceback.TracebackException(type(error), error, frames, capture_locals=True).format()
    )
