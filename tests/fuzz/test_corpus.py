"""R10: the files that the fuzzer starts from, and all its findings, replayed without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proofs import times

from fuzz.checking import check

HERE = Path(__file__).parent
FILES = {
    f"{folder}/{path.name}": path.read_bytes()
    for folder in ("corpus", "findings")
    for path in sorted((HERE / folder).iterdir())
}


def test_the_corpus_is_small() -> None:
    """The files are few and small enough for a repository."""
    assert 20 < len(FILES) < 100
    assert sum(map(len, FILES.values())) < 300_000


@pytest.mark.parametrize("name", FILES)
def test_r10_findings_stay_fixed(name: str) -> None:
    """Every file is a usable result or an error of the library, however it is read."""
    check(FILES[name])


def test_r10_truncated_files_are_a_result_or_an_error() -> None:
    """Every file, cut at a dozen places, is a usable result or an error of the library."""
    for body in FILES.values():
        for twelfth in range(12):
            check(body[: len(body) * twelfth // 12])


headers = st.sampled_from(["retry-after", "date", "location", "x-ci-request-id", "x-cos-trace-id"])


@settings(max_examples=times(2000))
@given(
    st.dictionaries(headers, st.binary(max_size=30).filter(lambda value: b"\r\n" not in value)),
    st.binary(),
)
@example({"retry-after": b"nan"}, b"")
@example({"retry-after": b"1e999"}, b"{}")
@example({"date": b"Mon, 99 Foo 99999999999 00:00:00 +9999", "retry-after": b"x"}, b"<a")
def test_r10_any_headers_and_bytes_are_a_result_or_an_error(
    fields: dict[str, bytes], body: bytes
) -> None:
    """Random bytes under random headers are a usable result or an error of the library."""
    head = b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in fields.items())
    check(head + b"\r\n" + body)
