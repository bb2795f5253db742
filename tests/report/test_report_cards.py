"""Cards: texts with their keywords, frames, libraries and sounds."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from reports import BEGIN, picture, section

from ci_live_audit import AudioSection, AuditJob, HitFlag, JobState, Scene, Snapshot
from ci_live_audit.models import (
    HitInfo,
    LibResult,
    Location,
    ObjectResult,
    OcrHitInfo,
    OcrResult,
    ReadOnly,
    TimedLabel,
)
from ci_live_audit.report.cards import Card, Frame, card
from ci_live_audit.report.items import items


def card_of(found: Snapshot | AudioSection) -> Card:
    lists = {"snapshots": (found,)} if isinstance(found, Snapshot) else {"audio_sections": (found,)}
    ((item, same),) = items(AuditJob(job_id="av1", state=JobState.SUCCESS, **lists))
    return card(item, same)


def marked(parts: Any) -> list[str]:
    return [part.text for part in parts if part.marked]


def test_keywords_of_a_picture() -> None:
    """Keywords of all kinds are marked in the text; those that are not in it are beside it."""
    scene = {
        "keywords": ("spoken",),
        "ocr_results": (OcrResult(text="Add WX8888", keywords=("wx8888", "add")),),
        "lib_results": (LibResult(lib_name="words", lib_type=2, keywords=("of library",)),),
        "hit_infos": (HitInfo(type="model", lib_name="mine", keywords=("hit",)),),
    }
    found = attrs.evolve(
        picture(1, "Ads", scene=scene, text="Add WX8888, hit"),
        ocr_hit_infos=(OcrHitInfo(text="t", hit_infos=(HitInfo(keywords=("deep",)),)),),
    )
    shown = card_of(found)
    assert marked(shown.text) == ["Add", "WX8888", "hit"]
    assert shown.keywords == ("spoken", "of library", "deep")
    assert marked(shown.detections[0].text) == ["Add", "WX8888"]
    assert shown.libraries == ("words, of library, custom", "model, mine, hit")


def test_samples_of_a_library() -> None:
    """A hit of a picture has its id and its score."""
    libraries = (LibResult(image_id="77", score=93), LibResult(lib_type=1), LibResult())
    assert card_of(picture(1, "Porn", scene={"lib_results": libraries})).libraries == (
        "image 77, score 93",
        "preset",
        "",
    )


@pytest.mark.parametrize(
    ("place", "frame"),
    [
        (
            Location(x=60, y=40.5, width=220, height=50),
            Frame(x=60, y=40.5, width=220, height=50, turn=0),
        ),
        (
            Location(x=1, y=2, width=3, height=4, rotate=15),
            Frame(x=1, y=2, width=3, height=4, turn=345),
        ),
        (Location(x=1, y=2, width=3), None),
        (Location(x=1, y=2, width=-3, height=4), None),
        (Location(y=2, width=3, height=4), None),
        (Location(x=1, width=3, height=4), None),
        (None, None),
    ],
)
def test_frames(place: Location | None, frame: Frame | None) -> None:
    """The service turns counterclockwise, a picture on a page clockwise."""
    scenes = ReadOnly(
        {
            "Ads": Scene(
                hit_flag=HitFlag.MISS,
                ocr_results=(OcrResult(text="a"),),
                object_results=(ObjectResult(name="QR", sub_label="QRCode", location=place),),
            )
        }
    )
    _, found = card_of(attrs.evolve(picture(1, "Porn"), scenes=scenes)).detections
    assert (found.number, found.frame, found.words) == (2, frame, ("Ads", "QRCode"))
    assert [part.text for part in found.text] == ["QR"]


def test_a_section() -> None:
    """Its languages, speakers and sounds are told with their times."""
    labels = (TimedLabel(label="moan", score=88, start_time=500, end_time=2000), TimedLabel())
    found = attrs.evolve(
        section(1, "Porn", scene={"recognition_results": labels}),
        sub_label="Moan",
        language_results=(TimedLabel(label="en", score=97),),
    )
    shown = card_of(found)
    assert shown.words == ("Moan",)
    assert shown.sounds == ("en 97", "moan 88 0:00:00\u20130:00:02", "")


def test_addresses() -> None:
    """Only a URL of the web is one; another is a text."""
    shown = card_of(picture(1, "Porn", url="https://example.com/1.jpg", url_expires_at=BEGIN))
    assert (shown.url, shown.address, shown.expires_at) == ("https://example.com/1.jpg", "", BEGIN)
    shown = card_of(picture(1, "Porn", url="javascript:alert(1)"))
    assert (shown.url, shown.address) == (None, "javascript:alert(1)")
    assert card_of(picture(1, "Porn")).address == ""


def test_what_no_class_has() -> None:
    """Values of new nodes are told as they are."""
    found = attrs.evolve(picture(1, "Porn"), extra=ReadOnly({"Score": "high"}))
    assert card_of(found).extra == '{"Score": "high"}'
    assert card_of(picture(1, "Porn")).extra == ""
