"""`report.render`: one page, the same each time, in which no text is more than a text."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs import times
from reports import BEGIN, HOSTILE, Elements, filled, picture, stream_job

from ci_live_audit import AuditJob, JobNotFound, JobState, Outcome, report
from ci_live_audit.errors import ConfigurationError
from ci_live_audit.report import page as pages
from ci_live_audit.report import texts


def data_of(page: str) -> Any:
    """Return what the script of a page knows."""
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL
    )
    return json.loads(text)


def whole(page: str) -> str:
    """Return a page with all that is packed in it."""
    data = data_of(page)
    packed = [*data["groups"], *(one for stream in data["streams"] for one in stream["packed"])]
    return page + "".join(zlib.decompress(base64.b64decode(one)).decode() for one in packed)


def test_a_report() -> None:
    """Pictures, sections, texts, frames, times and facts of a job are in the page."""
    page = report.render([stream_job(data_id="room 7")], title="Night", now=BEGIN)
    found = Elements(page)
    sources = {one["src"] for one in found.all("img")}
    assert sources == {f"https://pictures.example.com/av1/{n}.svg?q=1&s=2" for n in (20, 40, 50)}
    (audio,) = found.all("audio")
    assert audio["src"] == "https://pictures.example.com/av1/a.wav"
    assert [one["id"] for one in found.all("article")] == ["s1i0", "s1i1", "s1i2", "s1i3"]
    assert "rotate(345 400 120)" in page
    assert "<mark>WX8888</mark>" in page
    for text in ("Night", "room 7", "1 sensitive", "20:37:45 UTC", "27 Nov 2026", "SexBehavior"):
        assert text in found.text, text


def test_the_same_jobs_make_the_same_page() -> None:
    """Nothing in it depends on the moment, the process, or the kind of the iterable."""
    jobs = [stream_job(), AuditJob(job_id="av2", state=JobState.AUDITING)]
    assert report.render(jobs) == report.render(iter(jobs)) == report.render(tuple(jobs))
    assert "made" not in Elements(report.render(jobs)).text


def test_no_jobs() -> None:
    """A report of nothing says so."""
    found = Elements(report.render([]))
    assert "There are no streams in this report." in found.text
    assert not found.all("table")


def test_no_snapshots() -> None:
    """A job without any is a row and a section, and has no timeline."""
    found = Elements(report.render([AuditJob(job_id="av1", state=JobState.SUBMITTED)]))
    assert "No verdict so far" in found.text
    assert not found.all("div", **{"class": "timeline"})


def test_outcomes_are_taken_too() -> None:
    """What a bulk run yields makes a report, its errors included; the worst comes first."""
    error = JobNotFound(status=404, code="AuditingJobNotFound").about("query", "av0")
    lost = Outcome(job_id="av0", error=error)
    page = report.render([lost, Outcome(job_id="av1", job=stream_job())])
    assert "query of av0: 404 AuditingJobNotFound" in page
    assert [one["id"] for one in Elements(page).all("section")] == ["s2", "s1"]


def test_links_that_have_expired() -> None:
    """By the time the page is made they are left out; without one the page itself looks."""
    expires_at = BEGIN + timedelta(hours=2)
    for now, images in ((None, 3), (BEGIN, 3), (expires_at, 0)):
        found = Elements(report.render([stream_job(expires_at=expires_at)], now=now))
        assert len(found.all("img")) == images
        assert len(found.all("audio")) == (images > 0)
        assert ("The link expired." in found.text) == (images == 0)
        assert [one["data-until"] for one in found.all("figure")] == 4 * [
            "2026-11-27T22:31:05.000Z"
        ]
    unknown = Elements(report.render([stream_job(expires_at=None)]))
    assert len(unknown.all("img")) == 3


def test_other_addresses_are_texts() -> None:
    """What is no URL of the web is shown, and nothing is loaded."""
    job = AuditJob(
        job_id="av1",
        state=JobState.SUCCESS,
        snapshots=(picture(1, "Porn", url="rtmp://example.com/x", snapshot_time=5_000),),
    )
    found = Elements(report.render([job]))
    assert "No web address: rtmp://example.com/x" in found.text
    assert "+0:00:05" in found.text
    assert not found.all("img")


ALLOWED = {"http", "https"}
#: What a browser loads, opens or runs.
URLS = {"src", "href", "action", "formaction", "data", "srcset", "poster", "ping", "background"}


def check(page: str, *, links: int | None = None) -> None:
    """Check that a page consists of what its templates have, whatever the texts in it."""
    page.encode()
    found = Elements(whole(page))
    scripts = found.all("script")
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert not {"iframe", "object", "embed", "base", "link", "plaintext"} & {
        tag for tag, _ in found.found
    }
    for tag, attributes in found.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        for name in URLS & attributes.keys():
            value = attributes[name] or ""
            assert value.partition(":")[0].lower() in ALLOWED or re.fullmatch(r"#[\w-]+", value)
        if attributes.get("target") == "_blank":
            assert attributes["rel"] == "noreferrer noopener"
        if tag == "meta" and "http-equiv" in attributes:
            assert attributes["http-equiv"] == "Content-Security-Policy"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_texts(text: str) -> None:
    """In every place at once: labels, scenes, keywords, URLs, ids, user info, extra, the title."""
    job = filled(AuditJob, text)
    error = Outcome(job_id=text, error=JobNotFound(status=404, message=text))
    page = report.render([job, error, stream_job()], title=text)
    check(page)
    # The script shows the names of streams by itself.
    assert all(texts.visible(one["name"]) == one["name"] for one in data_of(page)["streams"])
    plain = Elements(report.render([filled(AuditJob, "text"), error, stream_job()]))
    if not text.startswith("https://example.com/") and len(text) < 2_000:
        assert [tag for tag, _ in Elements(page).found] == [tag for tag, _ in plain.found]


@settings(max_examples=times(200), deadline=None)
@given(st.text(st.characters(codec=None)) | st.text("<>&\"'/-!=` \x00\u202e{}%s", max_size=12))
def test_any_text_is_a_text(text: str) -> None:
    """No text changes the elements of a page."""
    check(report.render([filled(AuditJob, text)], title=text))


def test_the_policy_names_what_is_in_the_page() -> None:
    """Script and style are those of the digests; nothing else may run or be loaded."""
    page = report.render([stream_job()])
    (policy,) = Elements(page).all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.split(" ", 1) for rule in (policy["content"] or "").split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "http: https:"
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(sha256(text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert page.index("Content-Security-Policy") < page.index("<style")


def test_what_the_script_knows() -> None:
    """Each item has its key, kind, verdict, score, label, time, scenes and place in time."""
    (stream,) = data_of(report.render([stream_job()]))["streams"]
    assert stream["job"] == "av1"
    assert (stream["group"], stream["packed"]) == (None, [])
    (first, *_) = stream["items"]
    ms = picture(400).snapshot_time
    assert first[1:] == [
        "picture",
        4,
        "Sensitive",
        98,
        "Porn",
        ms,
        "2026-11-27T20:37:45.000Z",
        [0],
        2,
    ]


def test_many_items_come_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first portions of the worst streams are in the page as they are, the rest packed."""
    monkeypatch.setattr(pages, "INLINE", (30, 60))
    many = tuple(picture(second, "Porn") for second in range(60))
    jobs = [stream_job("av1"), stream_job("av2", snapshots=many), stream_job("av3", snapshots=many)]
    page = report.render(jobs)
    found = Elements(page)
    assert [one["id"] for one in found.all("article")] == [f"s2i{n}" for n in range(24)]
    assert "37 more are packed" in found.text
    assert "2 more streams are packed" in found.text
    assert [one["id"] for one in found.all("section")] == ["s2", "s3", "s1"]
    assert [one["group"] for one in data_of(page)["streams"]] == [None, 0, 0]
    assert len({one["id"] for one in Elements(whole(page)).all("article")}) == 61 + 61 + 4


def test_many_streams_come_in_groups() -> None:
    """Those after the first sixty are packed together; each has its row in the table."""
    jobs = [stream_job(f"av{number}") for number in range(100)]
    page = report.render(jobs)
    assert len(Elements(page).all("tr")) == 101
    assert len(Elements(page).all("h2")) == 60 + 1
    data = data_of(page)
    assert [one["group"] for one in data["streams"]] == [
        None if number < 60 else (number - 60) // 12 for number in range(100)
    ]
    assert len(Elements(whole(page)).all("h2")) == 100 + 1
    assert len(Elements(whole(page)).all("article")) == 400


def test_20_000_flagged_snapshots_fit() -> None:
    """All of them, with signed URLs and texts, are in a page of 15 MB."""
    number = 20_000 if times(10) == 10 else 2_000
    sign = "q-sign-algorithm=sha1&q-ak=AKIDEXAMPLE&q-sign-time=1700000000;1700007200&q-signature="
    base = "https://examplebucket-1250000000.cos.ap-beijing.myqcloud.com/live"

    def snapshots() -> Iterator[Any]:
        for one in range(number):
            digest = sha256(b"%d" % one).hexdigest()
            url = f"{base}/{one:08d}.jpg?{sign}{digest}&x-cos-security-token={digest * 4}"
            text = f"add wx{digest[:8]} now"
            yield picture(one, "Ads", result=2, text=text, url=url, url_expires_at=BEGIN)

    page = report.render(
        [AuditJob(job_id="av1", state=JobState.SUCCESS, snapshots=tuple(snapshots()))]
    )
    assert len(page.encode()) < 15_000_000 * number / 20_000
    assert len(data_of(page)["streams"][0]["items"]) == number


def test_jobs_are_taken_one_by_one() -> None:
    """None is kept once the next one is taken."""
    taken: list[ref[AuditJob]] = []

    def jobs() -> Iterator[AuditJob]:
        for number in range(5):
            job = stream_job(f"av{number}")
            taken.append(ref(job))
            yield job
            del job
            alive = sum(one() is not None for one in taken)
            assert alive <= 1

    report.render(jobs())
    assert len(taken) == 5


def test_jinja_is_loaded_when_it_is_needed() -> None:
    """Importing the module loads nothing that only a report needs."""
    code = "import sys; from ci_live_audit import report; report.render; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True)
    assert not {b"jinja2", b"httpx"} & {*done.stdout.split()}


def test_without_jinja_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module can be imported without the extra; a report needs it."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    pages._templates.cache_clear()
    with pytest.raises(ConfigurationError, match=r'pip install "ci-live-audit\[report\]"'):
        report.render([])


def test_many_scenes_can_be_chosen() -> None:
    """The sixty that were hit most are named; others are found among all."""
    many = tuple(picture(one, f"Scene{one % 70}") for one in range(140))
    page = report.render([stream_job(snapshots=many)])
    assert len(data_of(page)["scenes"]) == 60
    assert page.count("<option value=") < 80
