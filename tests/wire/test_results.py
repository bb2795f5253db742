"""`decode`: every value of a response has its place, and every other body is a clear error."""

from __future__ import annotations

import ast
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import attrs
import pytest

import ci_live_audit
from ci_live_audit import decode
from ci_live_audit.errors import (
    AccessDenied,
    DecodeError,
    InvalidArgument,
    JobNotFound,
    LiveAuditError,
    ServiceError,
    ServiceUnavailable,
    Throttled,
)
from ci_live_audit.models import (
    AudioSection,
    AuditJob,
    CancelledJob,
    HitFlag,
    HitInfo,
    JobState,
    LibResult,
    ListResult,
    Location,
    MaskInfo,
    MaskLiveInfo,
    MaskOutput,
    MaskRecordInfo,
    ObjectResult,
    OcrHitInfo,
    OcrResult,
    Position,
    ReadOnly,
    Result,
    Scene,
    Snapshot,
    SubmittedJob,
    TimedLabel,
    UserInfo,
    Verdict,
)
from ci_live_audit.testing.render import error_document, render

SAMPLES = {
    path.name: path.read_bytes() for path in (Path(__file__).parents[1] / "samples").iterdir()
}
SHANGHAI = timezone(timedelta(hours=8))
NOON = datetime(2022, 4, 8, 12, tzinfo=UTC)
MISS = Scene(hit_flag=HitFlag.MISS, score=0)
HOST = "https://examplebucket-1250000000.cos.ap-beijing.myqcloud.com"

QUERY = AuditJob(
    job_id="vab1ca9fc8a3ed11ea834c525400863904",
    state=JobState.SUCCESS,
    creation_time=datetime(2019, 7, 7, 12, 12, 12, tzinfo=SHANGHAI),
    type="live_video",
    snapshot_count=1,
    label="Normal",
    result=Verdict.NORMAL,
    scenes=ReadOnly(
        {
            "Porn": Scene(hit_flag=HitFlag.MISS, count=0),
            "Ads": Scene(hit_flag=HitFlag.MISS, count=0),
        }
    ),
    snapshots=(
        Snapshot(
            url="http://examplebucket-1250000000.cos.ap-chongqing.myqcloud.com/0.jpg",
            snapshot_time=1649387157000,
            text="Haha",
            label="Normal",
            result=Verdict.NORMAL,
            scenes=ReadOnly({"Porn": MISS, "Ads": MISS}),
        ),
    ),
    audio_sections=(
        AudioSection(
            url="https://auditing-1250000000.cos.ap-guangzhou.myqcloud.com/q9MhdztF/0.mp3",
            offset_time=1649387157000,
            duration=30000,
            text="wc xx",
            label="Normal",
            result=Verdict.NORMAL,
            scenes=ReadOnly({"Porn": MISS, "Ads": MISS}),
        ),
    ),
    request_id="xxxxxxxxxxxxxx",
)

PORN_IN_A_SNAPSHOT = Scene(
    hit_flag=HitFlag.HIT,
    score=97,
    label="SexBehavior",
    category="Behavior",
    sub_label="SexBehavior",
    code="0",
    message="OK",
    keywords=("abc123", "微信"),
    keywords_raw="abc123,微信",
    ocr_results=(
        OcrResult(
            text="加微信 abc123",
            keywords=("abc123", "微信"),
            keywords_raw="abc123, 微信",
            sub_label="Contact",
            location=Location(
                x=12.5,
                y=30.0,
                width=120.25,
                height=24.0,
                rotate=359.5,
                extra=ReadOnly({"Unit": "px"}),
            ),
            extra=ReadOnly({"Confidence": "88"}),
        ),
        OcrResult(text="second line"),
    ),
    object_results=(
        ObjectResult(
            name="QRCode",
            sub_label="QRCode",
            keywords=("scan", "me"),
            keywords_raw="scan,me",
            location=Location(x=1.0, y=2.0, width=3.0, height=4.0, rotate=0.0),
            extra=ReadOnly({"Confidence": "77"}),
        ),
    ),
    lib_results=(LibResult(image_id="img-42", score=91, extra=ReadOnly({"Confidence": "66"})),),
    hit_infos=(
        HitInfo(
            type="Keyword",
            keywords=("abc123", "微信"),
            keywords_raw="abc123,微信",
            lib_name="contacts",
        ),
    ),
    extra=ReadOnly({"Model": ReadOnly({"Name": "porn", "Version": "3"})}),
)

ADS_IN_A_SOUND = Scene(
    hit_flag=HitFlag.SUSPECTED,
    score=70,
    category="Contact",
    keywords=("微信", "one, two"),
    lib_results=(
        LibResult(lib_type=2, lib_name="contacts", keywords=("微信", "QQ"), keywords_raw="微信,QQ"),
        LibResult(lib_type=1, lib_name="preset", keywords=("微信", "QQ")),
    ),
    speaker_results=(
        TimedLabel(
            label="host", score=81, start_time=0, end_time=1500, extra=ReadOnly({"Gender": "1"})
        ),
    ),
    recognition_results=(TimedLabel(label="Moan", score=82, start_time=1500, end_time=3000),),
)

COMPLETE = AuditJob(
    code="Success",
    message="Success",
    data_id="room-7/2022-04-08",
    job_id="av0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    state=JobState.AUDITING,
    creation_time=datetime(2022, 4, 8, 11, 5, 57, tzinfo=SHANGHAI),
    type="live_video",
    url="rtmp://live.example.com/app/room7?txSecret=1&txTime=2",
    object="live/room7.m3u8",
    snapshot_count=2,
    forbid_state=1,
    label="Porn",
    sub_label="SexBehavior",
    result=Verdict.SENSITIVE,
    bucket_id="examplebucket-1250000000",
    region="ap-beijing",
    cos_headers=ReadOnly({"x-cos-meta-room": "7", "x-cos-meta-host": "张三"}),
    scenes=ReadOnly(
        {
            "Porn": Scene(hit_flag=HitFlag.HIT, count=2),
            "Ads": Scene(hit_flag=HitFlag.MISS, count=0),
            "Terrorism": Scene(hit_flag=HitFlag.MISS, count=1),
            "Terrorist": Scene(hit_flag=HitFlag.MISS, count=2),
            "Politics": Scene(hit_flag=HitFlag.SUSPECTED, count=3),
            "Teenager": Scene(hit_flag=HitFlag.MISS, count=4),
            "Illegal": Scene(hit_flag=HitFlag.MISS, count=5),
            "Abuse": Scene(hit_flag=HitFlag.MISS, count=6),
            "Meaningless": Scene(hit_flag=HitFlag.MISS, count=7),
        }
    ),
    ocr_hit_infos=(
        OcrHitInfo(
            text="加微信 abc123",
            hit_infos=(
                HitInfo(
                    type="Keyword",
                    keywords=("微信", "abc123"),
                    lib_name="contacts",
                    positions=(
                        Position(start=1, end=3, extra=ReadOnly({"Line": "0"})),
                        Position(start=4, end=10),
                    ),
                    extra=ReadOnly({"Weight": "0.5"}),
                ),
                HitInfo(type="Lib", keywords=("微信",), lib_name="wechat"),
            ),
            extra=ReadOnly({"Engine": "ocr-2"}),
        ),
    ),
    snapshots=(
        Snapshot(
            url=f"{HOST}/0.jpg?sign=a&t=1",
            url_expires_at=NOON + timedelta(hours=2),
            text="  加微信 abc123 ",
            label="Porn",
            result=Verdict.SENSITIVE,
            snapshot_time=1649387157000,
            scenes=ReadOnly(
                {
                    "Porn": PORN_IN_A_SNAPSHOT,
                    "Ads": MISS,
                    "BrandNew": Scene(hit_flag=HitFlag.SUSPECTED, score=60),
                }
            ),
            ocr_hit_infos=(OcrHitInfo(text="abc123"),),
            extra=ReadOnly({"Frame": ("1", "2")}),
        ),
        Snapshot(
            url=f"{HOST}/1.jpg",
            url_expires_at=NOON + timedelta(hours=2),
            snapshot_time=1649387162000,
            label="Normal",
            result=Verdict.NORMAL,
        ),
    ),
    audio_sections=(
        AudioSection(
            url=f"{HOST}/0.mp3",
            url_expires_at=NOON + timedelta(hours=2),
            offset_time=1649387157000,
            duration=3000,
            text="哈哈 <laughs>",
            label="Ads",
            sub_label="Contact",
            result=Verdict.SUSPECTED,
            scenes=ReadOnly({"Ads": ADS_IN_A_SOUND}),
            language_results=(
                TimedLabel(label="cmn", score=90, start_time=0, end_time=3000),
                TimedLabel(label="eng", score=10, start_time=0, end_time=3000),
            ),
            extra=ReadOnly({"Channel": "left"}),
        ),
    ),
    user_info=UserInfo(
        token_id="token-1",
        nickname="Nick & Nora",
        device_id="device-1",
        app_id="app-1",
        room="7",
        ip="192.0.2.7",
        type="vip",
        receive_token_id="token-2",
        gender="female",
        level="12",
        role="host",
        extra=ReadOnly({"Team": "blue"}),
    ),
    list_results=(
        ListResult(
            list_type=1,
            list_name="banned",
            entity="192.0.2.7",
            extra=ReadOnly({"Since": "2022"}),
        ),
        ListResult(list_type=0, list_name="friends", entity="token-1"),
    ),
    mask_info=MaskInfo(
        record_info=MaskRecordInfo(
            code="Success",
            message="done",
            output=MaskOutput(
                region="ap-beijing",
                bucket="examplebucket-1250000000",
                object="mask/room7.mp4",
                extra=ReadOnly({"ETag": "abc"}),
            ),
            extra=ReadOnly({"Cost": "5"}),
        ),
        live_info=MaskLiveInfo(
            start_time="2022-04-08T11:06:00+0800",
            end_time="2022-04-08T11:36:00+0800",
            output="rtmp://push.example.com/app/masked",
            extra=ReadOnly({"Bitrate": "900"}),
        ),
        extra=ReadOnly({"Mode": "Mosaic"}),
    ),
    request_id="NTk0MjdmODlfMjQ4OGY3XzYzYzhf",
    received_at=NOON,
    extra=ReadOnly(
        {
            "ListInfo": ReadOnly({"ListVersion": "3"}),
            "Progress": "50",
            "Server": "inner",
            "Response.Server": "outer",
            "Billing": ReadOnly({"Unit": "scene", "Note": None}),
        }
    ),
)

CALLBACK = AuditJob(
    code="Success",
    message="Success",
    data_id="room-7/2022-04-08",
    job_id="av0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    state=JobState.AUDITING,
    creation_time=datetime(2022, 4, 8, 11, 5, 57, tzinfo=SHANGHAI),
    type="live_video",
    url="rtmp://live.example.com/app/room7",
    bucket_id="examplebucket-1250000000",
    region="ap-beijing",
    forbid_state=0,
    snapshot_count=1,
    label="Ads",
    result=Verdict.SUSPECTED,
    cos_headers=ReadOnly({"x-cos-meta-room": "7", "x-cos-meta-tags": ("a", "b")}),
    scenes=ReadOnly(
        {
            "Porn": Scene(hit_flag=HitFlag.MISS, count=0),
            "Ads": Scene(hit_flag=HitFlag.SUSPECTED, count=1),
        }
    ),
    snapshots=(
        Snapshot(
            url=f"{HOST}/0.jpg",
            label="Ads",
            result=Verdict.SUSPECTED,
            snapshot_time=1649387157000,
            scenes=ReadOnly(
                {
                    "Porn": MISS,
                    "Ads": Scene(
                        hit_flag=HitFlag.SUSPECTED,
                        score=70,
                        label="QRCode",
                        ocr_results=(
                            OcrResult(
                                text="scan, me",
                                keywords=("scan, me",),
                                location=Location(
                                    x=12.5, y=30.0, width=120.25, height=24.0, rotate=0.0
                                ),
                            ),
                        ),
                    ),
                }
            ),
        ),
    ),
    audio_sections=(
        AudioSection(
            url=f"{HOST}/0.mp3",
            offset_time=1649387157000,
            duration=3000,
            text="hello",
            label="Normal",
            result=Verdict.NORMAL,
            scenes=ReadOnly(
                {
                    "Porn": MISS,
                    "Ads": Scene(
                        hit_flag=HitFlag.MISS,
                        score=12,
                        keywords=("one", "two"),
                        lib_results=(
                            LibResult(lib_type=1, lib_name="preset", keywords=("one", "two")),
                        ),
                    ),
                }
            ),
        ),
    ),
    user_info=UserInfo(token_id="token-1", nickname="Nick", room="7", level="12"),
    list_results=(ListResult(list_type=1, list_name="banned", entity="192.0.2.7"),),
    extra=ReadOnly(
        {
            "Progress": ReadOnly({"Done": 0.5, "Steps": (1, 2), "Final": False}),
            "EventName": "ReviewVideo",
        }
    ),
)


def response(inside: str = "", around: str = "") -> bytes:
    """Return the response to a query with more nodes in ``JobsDetail`` and around it."""
    must = "<JobId>j</JobId><State>Success</State>"
    return f"<Response><JobsDetail>{must}{inside}</JobsDetail>{around}</Response>".encode()


def callback(**details: Any) -> bytes:
    """Return a Detail callback with more names in ``JobsDetail``."""
    return json.dumps({"JobsDetail": {"JobId": "j", "State": "Success", **details}}).encode()


def every_result(value: Any) -> list[Result]:
    """Return all results in a value, itself included."""
    if isinstance(value, Result):
        fields = attrs.fields(type(value))  # type: ignore[arg-type]
        inside = [getattr(value, field.name) for field in fields]
        return [value, *every_result(inside)]
    if isinstance(value, ReadOnly):
        return every_result(list(value.values()))
    if isinstance(value, list | tuple):
        return [result for item in value for result in every_result(item)]
    return []


# Samples of the documentation


def test_query_sample() -> None:
    """Every value of the sample of the query document has its place."""
    assert decode.job(SAMPLES["query.xml"]) == QUERY


def test_cancel_sample() -> None:
    """Every value of the sample of the cancel document has its place."""
    assert decode.cancelled(SAMPLES["cancel.xml"]) == CancelledJob(
        job_id="vab1ca9fc8a3ed11ea834c525400863904",
        data_id="123-fdrsg-123",
        creation_time=datetime(2021, 8, 7, 12, 12, 12, tzinfo=SHANGHAI),
        request_id="xxxxxxxxxxxxxx",
    )


def test_submission() -> None:
    """The response to a submission is read, and unknown nodes in it are kept."""
    body = response("<DataId>d</DataId><Url>rtmp://x</Url>", "<RequestId>r</RequestId>")
    assert decode.submitted(body) == SubmittedJob(
        job_id="j",
        data_id="d",
        state=JobState.SUCCESS,
        request_id="r",
        extra=ReadOnly({"Url": "rtmp://x"}),
    )


def test_complete_sample() -> None:
    """Every node that a document or an SDK names has its attribute, any other is in `extra`."""
    assert decode.job(SAMPLES["complete.xml"], received_at=NOON) == COMPLETE


def test_complete_sample_is_complete() -> None:
    """The sample sets every attribute of every result class somewhere."""
    defaults = {
        (type(result), field.name)
        for result in every_result(COMPLETE)
        for field in attrs.fields(type(result))  # type: ignore[arg-type]
    }
    filled = {
        (type(result), field.name)
        for result in every_result(COMPLETE)
        for field in attrs.fields(type(result))  # type: ignore[arg-type]
        if getattr(result, field.name) != field.default
    }
    assert defaults - filled == {(AuditJob, "unreadable")}


def test_detail_callback() -> None:
    """The JSON of a callback gives the same types as the XML of a query."""
    assert decode.job(SAMPLES["callback.json"]) == CALLBACK


@pytest.mark.parametrize("name", ["query", "cancel"])
def test_samples_as_printed_are_refused(name: str) -> None:
    """The mismatched tags that the documents print are an error, not half a result."""
    with pytest.raises(DecodeError, match="mismatched tag"):
        decode.job(SAMPLES[f"{name}.malformed.xml"])


# Repeated, single, empty and absent elements


@pytest.mark.parametrize(
    ("inside", "count"),
    [
        ("", 0),
        ("<Snapshot/>", 0),
        ("<Snapshot>\n</Snapshot>", 0),
        ("<Snapshot><Text>a</Text></Snapshot>", 1),
        ("<Snapshot/><Snapshot><Text>a</Text></Snapshot>", 1),
        ("<Snapshot><Text>a</Text></Snapshot><Snapshot><Text>b</Text></Snapshot>", 2),
    ],
)
def test_a_list_is_a_tuple_of_any_number_of_elements(inside: str, count: int) -> None:
    """No, one and several elements all give a tuple, without the empty ones."""
    expected = tuple(Snapshot(text=text) for text in "ab"[:count])
    assert decode.job(response(inside)).snapshots == expected


@pytest.mark.parametrize("node", ["", "<{0}/>", "<{0}></{0}>", "<{0}> \n </{0}>"])
@pytest.mark.parametrize("tag", ["Label", "Result", "CreationTime", "PornInfo", "UserInfo"])
def test_an_empty_element_is_none(node: str, tag: str) -> None:
    """An empty element of any type is the service's null."""
    assert decode.job(response(node.format(tag))) == AuditJob(job_id="j", state=JobState.SUCCESS)


@pytest.mark.parametrize("value", [None, "", " ", {}])
@pytest.mark.parametrize("tag", ["PornInfo", "UserInfo", "Snapshot", "CosHeaders"])
def test_an_empty_json_value_is_none(value: Any, tag: str) -> None:
    """JSON has more kinds of null."""
    assert decode.job(callback(**{tag: value})) == AuditJob(job_id="j", state=JobState.SUCCESS)


def test_an_element_with_only_empty_children_is_present() -> None:
    """An element with empty children only is not the same as an absent one."""
    assert decode.job(response("<PornInfo><HitFlag/></PornInfo>")).porn == Scene()


def test_white_space_around_a_text_is_kept() -> None:
    """Only a text of nothing but white space is None."""
    snapshot = "<Snapshot><Text>\n a  b\t</Text><Label> </Label></Snapshot>"
    assert decode.job(response(snapshot)).snapshots == (Snapshot(text="\n a  b\t"),)


def test_indentation_leaves_no_trace() -> None:
    """An indented response gives the same result as one on a single line."""
    indented = "\n<ListInfo>\n <ListResults>\n  <Entity>e</Entity>\n </ListResults>\n</ListInfo>\n"
    flat = "".join(line.strip() for line in indented.splitlines())
    assert decode.job(response(indented)) == decode.job(response(flat))


# Keywords


@pytest.mark.parametrize(
    ("inside", "keywords", "raw"),
    [
        ("", (), None),
        ("<Keywords/>", (), None),
        ("<Keywords>a</Keywords>", ("a",), None),
        ("<Keywords>a,b</Keywords>", ("a", "b"), "a,b"),
        ("<Keywords> a , ,b c,</Keywords>", ("a", "b c"), " a , ,b c,"),
        ("<Keywords>a</Keywords><Keywords>b</Keywords>", ("a", "b"), None),
        ("<Keywords>a,b</Keywords><Keywords>c</Keywords>", ("a,b", "c"), None),
        ("<Keywords/><Keywords> </Keywords><Keywords>c</Keywords>", ("c",), None),
    ],
)
def test_keywords(inside: str, keywords: tuple[str, ...], raw: str | None) -> None:
    """A single text is split at its commas and kept; repeated ones are taken as they are."""
    assert decode.job(response(f"<PornInfo>{inside}<Score>1</Score></PornInfo>")).porn == Scene(
        score=1, keywords=keywords, keywords_raw=raw
    )


def test_keywords_of_json_are_not_split() -> None:
    """Keywords in a JSON list are taken as they are, even a single one."""
    job = decode.job(callback(PornInfo={"Keywords": ["a,b"]}))
    assert job.porn == Scene(keywords=("a,b",))


@pytest.mark.parametrize(("first", "second"), [("Keyword", "Keywords"), ("Keywords", "Keyword")])
def test_of_two_spellings_the_first_is_read(first: str, second: str) -> None:
    """Of two spellings of one node, the first is read and the second kept in `extra`."""
    hit = f"<HitInfos><{first}>a</{first}><{second}>b</{second}></HitInfos>"
    porn = decode.job(response(f"<PornInfo>{hit}</PornInfo>")).porn
    assert porn == Scene(hit_infos=(HitInfo(keywords=("a",), extra=ReadOnly({second: "b"})),))


# Scalars

HUGE = pytest.param(10**400, id="huge")  # more than a float can hold


@pytest.mark.parametrize(
    "value", ["0", " 7 ", "-1", "+7", "2147483648", "1649387157000", str(2**63 - 1), str(-(2**63))]
)
def test_integers_of_64_bits(value: str) -> None:
    """Integers are sent as texts and may have 64 bits."""
    snapshot = f"<Snapshot><SnapshotTime>{value}</SnapshotTime></Snapshot>"
    (found,) = decode.job(response(snapshot)).snapshots
    assert found.snapshot_time == int(value)


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_integers_of_json(value: object) -> None:
    """An integer in JSON may be an integer, a float or a text."""
    count = decode.job(callback(SnapshotCount=value)).snapshot_count
    assert (count, type(count)) == (7, int)


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ("97.0", 97),
        ("97.5", 98),
        (" 97.4\n", 97),
        ("1e2", 100),
        (97.5, 98),
        ("-0.5", 0),
        ([97], 97),
    ],
)
def test_a_score_with_a_fraction_is_rounded(value: object, score: int) -> None:
    """A score may be written with a fraction, and is the nearest integer."""
    job = decode.job(callback(PornInfo={"Score": value}))
    assert job.porn == Scene(score=score)
    assert job.unreadable == ()


@pytest.mark.parametrize("value", ["-", "--", " null ", "N/A", {}, [], " "])
@pytest.mark.parametrize(
    "tag", ["SnapshotCount", "Result", "CreationTime", "ForbidState", "UserInfo", "Snapshot"]
)
def test_a_word_for_nothing_is_none(tag: str, value: object) -> None:
    """A dash, an empty list or the like in the place of a number, a time or an object is null."""
    assert decode.job(callback(**{tag: value})) == decode.job(callback())


def unreadable(job: Any, path: str, kept: object) -> None:
    """Check that this is the one thing that could not be read, and that it is kept."""
    assert job.unreadable == (path,)
    *names, last = path.removeprefix("JobsDetail.").split(".")
    node = job
    for name in names:
        node = node.scenes[name.removesuffix("Info")] if name.endswith("Info") else node
    assert node.extra == {last: kept}
    assert job.to_dict()["unreadable"] == [path]


@pytest.mark.parametrize(
    "value",
    [
        *("x", "1_000", "0x1", "1 2", str(2**63), str(-(2**63) - 1), "1_0.5", "nan", "1e999"),
        pytest.param("\u0661", id="Arabic digit"),
        pytest.param("9" * 5000, id="huge"),
    ],
)
def test_a_text_that_is_not_an_integer(value: str) -> None:
    """A text that is not an integer, or only in Python, is kept in `extra`."""
    job = decode.job(response(f"<PornInfo><HitFlag>1</HitFlag><Score>{value}</Score></PornInfo>"))
    unreadable(job, "JobsDetail.PornInfo.Score", value)
    assert job.porn is not None
    assert (job.porn.hit_flag, job.porn.score) == (1, None)


@pytest.mark.parametrize("value", [True, 1e300, HUGE, {"A": 1}])
def test_a_json_value_that_is_not_an_integer(value: object) -> None:
    """A JSON value that is not a 64-bit integer is kept in `extra`."""
    unreadable(decode.job(callback(SnapshotCount=value)), "JobsDetail.SnapshotCount", value)


@pytest.mark.parametrize("value", ["1.5", 0.5, "x", "true", True])
def test_a_verdict_is_not_rounded(value: object) -> None:
    """A verdict between two is none of them."""
    job = decode.job(callback(Result=value, Label="Porn"))
    unreadable(job, "JobsDetail.Result", value)
    assert (job.result, job.label) == (None, "Porn")


@pytest.mark.parametrize(
    ("value", "flag"), [(True, 1), ("true", 1), (" True ", 1), ("false", 0), (False, 0), ("1.0", 1)]
)
def test_a_hit_flag_may_be_a_boolean(value: object, flag: int) -> None:
    """True is a hit, false is none."""
    porn = decode.job(callback(PornInfo={"HitFlag": value})).porn
    assert porn == Scene(hit_flag=HitFlag(flag))


@pytest.mark.parametrize("value", ["x", "nan", "-inf", "1e999", "1_0", True, HUGE, [["x"]]])
def test_a_value_that_is_not_a_number(value: Any) -> None:
    """A coordinate that is not a finite number is kept in the nearest `extra`."""
    results = [{"Location": {"X": value, "Y": 1}}]
    job = decode.job(callback(PornInfo={"OcrResults": results}))
    assert job.unreadable == ("JobsDetail.PornInfo.OcrResults[0].Location.X",)
    assert job.porn is not None
    kept = (("x",),) if value == [["x"]] else value
    assert job.porn.ocr_results[0].location == Location(y=1, extra=ReadOnly({"X": kept}))


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_json_only_in_python(value: str) -> None:
    """NaN and infinities anywhere in JSON make it unreadable."""
    with pytest.raises(DecodeError, match="is not a number"):
        decode.job(callback(Novelty="here").replace(b'"here"', value.encode()))
    assert decode.job(callback(Novelty=1.5)).extra["Novelty"] == 1.5


@pytest.mark.parametrize(
    "zone", ["+0800", "+08:00", "+08", pytest.param(".000+0800", id="milliseconds")]
)
def test_time_zone_spellings(zone: str) -> None:
    """Every spelling of a time zone is read: queries and callbacks use different ones."""
    job = decode.job(response(f"<CreationTime> 2021-08-07T12:12:12{zone}\n</CreationTime>"))
    assert job.creation_time == datetime(2021, 8, 7, 12, 12, 12, tzinfo=SHANGHAI)
    assert job.creation_time.utcoffset() == timedelta(hours=8)


@pytest.mark.parametrize(
    "value",
    [
        *("2021-08-07T12:12:12", "2021-08-07 12:12:12 ", "1628309532", " 1628309532000 "),
        *(1628309532, 1628309532000, 1628309532.0),
    ],
)
def test_times_without_a_zone(value: object) -> None:
    """A time without its zone is China's, and a number is seconds or milliseconds since 1970."""
    time = decode.job(callback(CreationTime=value)).creation_time
    assert time == datetime(2021, 8, 7, 12, 12, 12, tzinfo=SHANGHAI)


@pytest.mark.parametrize("value", ["yesterday", 0, True, 1e300, "1e10", "99", {"A": 1}])
def test_a_value_that_is_not_a_time(value: object) -> None:
    """What is no time is kept in `extra`."""
    unreadable(decode.job(callback(CreationTime=value)), "JobsDetail.CreationTime", value)


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false")])
def test_a_boolean_in_the_place_of_a_text(value: object, text: str) -> None:
    """A boolean in the place of a text becomes the text that JSON has for it."""
    assert decode.job(callback(Code=value)).code == text


def test_a_number_in_the_place_of_a_text() -> None:
    """A number in the place of a text becomes a text."""
    job = decode.job(callback(Code=-65007, Label=1.5, DataId=0))
    assert (job.code, job.label, job.data_id) == ("-65007", "1.5", "0")


def test_unknown_words_of_the_service_stay_readable() -> None:
    """An unknown state, verdict or hit flag is a member with its value."""
    job = decode.job(
        callback(State=" Paused ", Result=9, PornInfo={"HitFlag": -1}, Snapshot={"Result": "3"})
    )
    assert (job.state, job.state.value, job.ended) == ("Paused", "Paused", False)
    assert (job.result, job.snapshots[0].result) == (9, 3)
    assert job.porn is not None
    assert job.porn.hit_flag == -1


# Unknown nodes


def test_an_unknown_node_is_kept_where_it_was() -> None:
    """An unknown node is in the nearest `extra`, with its whole content."""
    new = "<New><A>1</A><A>2</A><B/><C><D> x </D></C>mixed</New>"
    kept = {"A": ("1", "2"), "B": None, "C": {"D": " x "}, "#text": "mixed"}
    job = decode.job(response(f"<PornInfo>{new}</PornInfo><Snapshot>{new}</Snapshot>{new}", new))
    assert job.porn == Scene(extra=ReadOnly({"New": kept}))
    assert job.snapshots == (Snapshot(extra=ReadOnly({"New": kept})),)
    assert job.extra == {"New": kept, "Response.New": kept}


def test_json_beside_the_details_is_kept_in_extra() -> None:
    """The other fields of a callback are in the `extra` of the job."""
    body = b'{"JobsDetail": {"JobId": "j", "State": "x", "A": 1}, "A": [true, null], "B": {}}'
    assert decode.job(body).extra == {"A": 1, "Response.A": (True, None), "B": {}}


def test_both_request_ids_are_kept() -> None:
    """A request id within the details is kept in `extra` if there is one beside them."""
    job = decode.job(response("<RequestId>inner</RequestId>", "<RequestId>outer</RequestId>"))
    assert job.request_id == "outer"
    assert "inner" in job.extra.values()


def test_a_request_id_within_the_details_is_read() -> None:
    """The request id may be within the details."""
    assert decode.job(response("<RequestId>inner</RequestId>")).request_id == "inner"


def test_text_between_elements_is_kept() -> None:
    """Text between elements is kept in `extra`, with the white space around it."""
    job = decode.job(response("<PornInfo> note <Score>1</Score></PornInfo> more ", "<RequestId/>"))
    assert job.porn == Scene(score=1, extra=ReadOnly({"#text": " note "}))
    assert job.extra == {"#text": " more "}


@pytest.mark.parametrize("tag", ["BrandNewInfo", "XInfo"])
def test_unknown_scene(tag: str) -> None:
    """An unknown ``<Name>Info`` that can be read as a scene is one."""
    job = decode.job(response(f"<{tag}><HitFlag>1</HitFlag><New>2</New></{tag}>"))
    scene = Scene(hit_flag=HitFlag.HIT, extra=ReadOnly({"New": "2"}))
    assert (job.scenes, job.extra) == ({tag.removesuffix("Info"): scene}, {})


@pytest.mark.parametrize(
    ("inside", "kept"),
    [
        ("<MediaInfo>text</MediaInfo>", {"MediaInfo": "text"}),
        ("<MediaInfo/>", {"MediaInfo": None}),
        ("<MediaInfo><Score>x</Score></MediaInfo>", {"MediaInfo": {"Score": "x"}}),
        ("<MediaInfo><A>1</A></MediaInfo>" * 2, {"MediaInfo": ({"A": "1"}, {"A": "1"})}),
        ("<Info><Score>1</Score></Info>", {"Info": {"Score": "1"}}),
    ],
)
def test_an_info_that_is_not_a_scene_is_kept_in_extra(inside: str, kept: dict[str, object]) -> None:
    """An unknown ``<Name>Info`` that is not a scene is kept like any unknown node."""
    job = decode.job(response(inside))
    assert (job.scenes, job.extra) == ({}, kept)


@pytest.mark.parametrize("value", [0, False])
@pytest.mark.parametrize("tag", ["PornInfo", "UserInfo", "Snapshot"])
def test_false_is_not_null(tag: str, value: object) -> None:
    """A JSON zero or false in the place of an object is kept, as it is not null."""
    job = decode.job(callback(**{tag: value}))
    (path,) = job.unreadable
    assert path.startswith(f"JobsDetail.{tag}")
    assert job.extra == {tag: value}


# The path of an unreadable value


@pytest.mark.parametrize(
    ("inside", "path"),
    [
        ("<Result>x</Result>", "Result"),
        ("<Result><A/></Result>", "Result"),
        ("<Result>1</Result><Result>2</Result>", "Result[1]"),
        ("<Result>x</Result><Result>y</Result>", "Result"),
        ("<State>Auditing</State>", "State[1]"),
        ("<Label><A/></Label>", "Label"),
        ("<CosHeaders>x</CosHeaders>", "CosHeaders"),
        ("<PornInfo>x</PornInfo>", "PornInfo"),
        ("<PornInfo><HitFlag>x</HitFlag></PornInfo>", "PornInfo.HitFlag"),
        ("<PornInfo><Score>1</Score></PornInfo>" * 2, "PornInfo[1]"),
        ("<PornInfo>x</PornInfo><PornInfo><Score>x</Score></PornInfo>", "PornInfo[1].Score"),
        ("<PornInfo><Keywords><A>a</A><B>b</B></Keywords></PornInfo>", "PornInfo.Keywords"),
        ("<UserInfo>x</UserInfo>", "UserInfo"),
        ("<UserInfo><IP><A/></IP></UserInfo>", "UserInfo.IP"),
        ("<Snapshot>x</Snapshot>", "Snapshot[0]"),
        (
            "<Snapshot/><Snapshot><PornInfo><HitFlag>x</HitFlag></PornInfo></Snapshot>",
            "Snapshot[1].PornInfo.HitFlag",
        ),
        (
            "<PornInfo><OcrResults/><OcrResults><Location><X>x</X></Location></OcrResults></PornInfo>",
            "PornInfo.OcrResults[1].Location.X",
        ),
        (
            "<AudioSection><LanguageResults><Score>x</Score></LanguageResults></AudioSection>",
            "AudioSection[0].LanguageResults[0].Score",
        ),
        (
            "<OcrHitInfos><HitInfos><Positions><Start>x</Start></Positions></HitInfos></OcrHitInfos>",
            "OcrHitInfos[0].HitInfos[0].Positions[0].Start",
        ),
        (
            "<ListInfo><ListResults/><ListResults><ListType>x</ListType></ListResults></ListInfo>",
            "ListInfo.ListResults[1].ListType",
        ),
        ("<MaskInfo><RecordInfo>x</RecordInfo></MaskInfo>", "MaskInfo.RecordInfo"),
    ],
)
def test_an_unreadable_value_has_its_path(inside: str, path: str) -> None:
    """`unreadable` names the very node, and the rest of the job is read."""
    job = decode.job(response(inside))
    assert f"JobsDetail.{path}" in job.unreadable
    assert (job.job_id, job.state) == ("j", JobState.SUCCESS)


@pytest.mark.parametrize("tag", ["New", "BrandNewInfo", "Label", "PornInfo", "Snapshot"])
def test_what_is_nested_too_deep_is_an_error(tag: str) -> None:
    """A tree that is deeper than any honest one is an error that names its node."""
    deep = f"<{tag}>{'<A>' * 70}{'</A>' * 70}</{tag}>"
    with pytest.raises(DecodeError, match="nested deeper") as caught:
        decode.job(response(deep))
    assert caught.value.path.startswith(f"JobsDetail.{tag}")
    with pytest.raises(DecodeError, match="nested deeper"):
        decode.job(response(deep * 2))
    assert str(caught.value).startswith(f"JobsDetail.{tag}")


@pytest.mark.parametrize("inside", ["<JobId>k</JobId>", "<JobId><A>a</A></JobId>"])
def test_a_doubtful_id_is_an_error(inside: str) -> None:
    """A job with two ids is nobody's."""
    with pytest.raises(DecodeError, match="cannot be read") as caught:
        decode.job(response(inside))
    assert caught.value.path == "JobsDetail.JobId"


def test_path_beside_the_details() -> None:
    """The path of a node beside the details does not begin with them."""
    job = decode.job(response("", "<RequestId><A>a</A></RequestId>"))
    assert (job.unreadable, job.request_id) == (("RequestId",), None)
    assert job.extra == {"RequestId": {"A": "a"}}


def test_other_results_have_unreadable_values_too() -> None:
    """A submission of which a value cannot be read has been made all the same."""
    body = response("<CreationTime>soon</CreationTime>")
    for result in (decode.submitted(body), decode.cancelled(body)):
        assert (result.job_id, result.creation_time) == ("j", None)
        unreadable(result, "JobsDetail.CreationTime", "soon")


def test_the_number_of_paths_is_bounded() -> None:
    """Of a document full of unreadable values, the first ten thousand paths are kept."""
    body = callback(Snapshot=[{"Result": "x"}] * 10_001)
    job = decode.job(body)
    assert len(job.unreadable) == 10_000
    assert job.unreadable[-1] == "JobsDetail.Snapshot[9999].Result"
    assert job.snapshots[-1].extra == {"Result": "x"}


@pytest.mark.parametrize(
    ("sent", "keywords", "paths"),
    [
        ([{"Keyword": "a"}, {"Keyword": "b"}], ("a", "b"), ()),
        ({"Keyword": ["a", "b"]}, ("a", "b"), ()),
        ({"Keyword": "a,b"}, ("a,b",), ()),
        ({"A": None}, (), ()),
        (0, (), ()),
        (False, (), ()),
        ([0, "a"], ("a",), ()),
        ([5, "a"], ("5", "a"), ()),
        ([{"Text": "a", "Score": 1}, "b"], ("a", "b"), ("[0]",)),
        ([{"Keyword": ["a", 1]}], ("a",), ("[0]",)),
        ([["a"], "b"], ("b",), ("[0]",)),
        ({"X": {"Y": 1}}, (), ("",)),
    ],
    ids=str,
)
def test_keywords_of_other_types(
    sent: Any, keywords: tuple[str, ...], paths: tuple[str, ...]
) -> None:
    """Keywords may be objects with a text each; what else is in them is kept in `extra`."""
    job = decode.job(callback(PornInfo={"Keywords": sent, "Score": 1}))
    assert job.porn is not None
    assert (job.porn.keywords, job.porn.score) == (keywords, 1)
    assert job.unreadable == tuple(f"JobsDetail.PornInfo.Keywords{path}" for path in paths)
    assert bool(job.porn.extra) is bool(paths)


def test_several_elements_in_the_place_of_one() -> None:
    """The first that can be read is taken, and the others are kept."""
    one, two = {"X": 1}, {"X": 2}
    for sent, rest in (([one], None), ([None, one], None), ([5, one, two], (5, {"X": 2}))):
        job = decode.job(callback(PornInfo={"OcrResults": [{"Location": sent}]}))
        assert job.porn is not None
        (found,) = job.porn.ocr_results
        assert found.location == Location(x=1)
        assert found.extra == ({} if rest is None else {"Location": rest})
        assert len(job.unreadable) == len(rest or ())


def test_a_new_scene_with_an_unreadable_value_is_one() -> None:
    """A scene that no document names is known by its hit flag, whatever else is wrong with it."""
    job = decode.job(callback(NewInfo={"HitFlag": 1, "Score": "x"}))
    assert job.scenes["New"].hit_flag == HitFlag.HIT
    unreadable(job, "JobsDetail.NewInfo.Score", "x")


@pytest.mark.parametrize("tag", ["JobId", "Label", "DataId", "Code", "RequestId", "Url"])
def test_white_space_around_words_is_not_kept(tag: str) -> None:
    """Ids, labels and the like have no line breaks around them."""
    body = b"<Response><JobsDetail><JobId>j</JobId><State>\n x\n</State></JobsDetail></Response>"
    body = body.replace(b"<JobId>j</JobId>", b"") if tag == "JobId" else body
    body = body.replace(b"<State>", f"<{tag}>\n  w\n </{tag}><State>".encode())
    job = decode.job(body)
    assert job.state.value == "x"
    assert "w" in attrs.asdict(job, recurse=False).values()


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"<Response><JobsDetail><State>Success</State></JobsDetail></Response>", "JobId"),
        (b"<Response><JobsDetail><JobId>j</JobId></JobsDetail></Response>", "State"),
        (
            b"<Response><JobsDetail><JobId> </JobId><State>x</State></JobsDetail></Response>",
            "JobId",
        ),
    ],
)
def test_a_job_must_have_its_id_and_state(body: bytes, path: str) -> None:
    """A job without its id or its state is an error with the path."""
    with pytest.raises(DecodeError, match="missing") as caught:
        decode.job(body)
    assert caught.value.path == f"JobsDetail.{path}"


# Time


def test_urls_expire_two_hours_after_the_response() -> None:
    """With `received_at`, snapshots and sections have `url_expires_at`."""
    job = decode.job(SAMPLES["query.xml"], received_at=NOON)
    assert job.received_at == NOON
    assert job.snapshots[0].url_expires_at == NOON + timedelta(hours=2)
    assert job.audio_sections[0].url_expires_at == NOON + timedelta(hours=2)


# Bodies that are not a result


BARE = [
    *(b"", b" \n", b"OK", b" ok\r\n", b'"Success"', b"{}", b'{"RequestId": null}', b"<Response/>"),
    *(b"<Response> </Response>", b"<RequestId/>", b'{"Response": {}}', b'{"Response": null}'),
    b'<?xml version="1.0"?>\n<Response>\n  <JobsDetail/>\n  <RequestId> </RequestId>\n</Response>',
]
IDENTIFIED = [
    b"<Response><RequestId>r</RequestId></Response>",
    b"<Response>\n\t<RequestId>r</RequestId>\n</Response>",
    b"<Response><JobsDetail/><RequestId>r</RequestId></Response>",
    b'{"RequestId": "r"}',
    b'{"Response": {"RequestId": "r", "JobsDetail": {}}}',
]


@pytest.mark.parametrize(
    ("body", "request_id"), [(body, None) for body in BARE] + [(body, "r") for body in IDENTIFIED]
)
def test_cancellation_without_details(body: bytes, request_id: str | None) -> None:
    """The response to a cancellation may say no more than a request id: its status says enough."""
    done = CancelledJob(job_id="j", request_id=request_id)
    assert decode.cancelled(body, job_id="j") == done
    with pytest.raises(DecodeError):
        decode.cancelled(body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"<html/>", b"<html><body/></html>", b"<Response>x</Response>", b"nope", b"OK!", b"[]"),
        *(b"<Response><JobsDetail>j</JobsDetail></Response>", b'{"Response": 1}', b'{"error": ""}'),
        *(b"<Response><State>Auditing</State></Response>", b"<Response><Html/></Response>"),
        *(b"<Response><JobsDetail><State>x</State></JobsDetail></Response>", b'{"Response": []}'),
    ],
)
def test_a_cancellation_that_says_something_else_is_refused(body: bytes) -> None:
    """A page of a gateway, or details of no job, do not show that the service has heard of it."""
    with pytest.raises(DecodeError):
        decode.cancelled(body, job_id="j")


def test_an_error_document_is_no_cancellation() -> None:
    """An error document says that it is not done, whatever its status."""
    with pytest.raises(AccessDenied):
        decode.cancelled(b"<Error><Code>AccessDenied</Code></Error>", job_id="j")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \r\n ", id="blank"),
        pytest.param(b"\0", id="nul"),
        pytest.param(b"OK", id="text"),
        pytest.param(b"<!doctype html><html><p>Bad gateway</html>", id="html"),
        pytest.param(b"<html><body/></html>", id="xhtml"),
        pytest.param(b"<Response/>", id="empty response"),
        pytest.param(b"<Response>x</Response>", id="text response"),
        pytest.param(b"<Response><JobsDetail/></Response>", id="empty details"),
        pytest.param(b"<Response><JobsDetail>x</JobsDetail></Response>", id="text details"),
        pytest.param(
            response().replace(b"</Resp", b"<JobsDetail><A/></JobsDetail></Resp"), id="two"
        ),
        pytest.param(response() + response(), id="two documents"),
        pytest.param(response("<Label>&nbsp;</Label>"), id="entity of html"),
        pytest.param(b"{}", id="empty json"),
        pytest.param(b'{"JobsDetail": []}', id="json list"),
        pytest.param(b'{"JobsDetail": {"JobId": "j"', id="cut json"),
        pytest.param(b'[{"JobsDetail": {}}]', id="json in a list"),
        pytest.param(b'{"code": 0, "message": "success", "data": {}}', id="simple callback"),
        pytest.param(b'{"JobsDetail": {"JobId": "j", "A": ' + b"9" * 5000 + b"}}", id="huge int"),
    ],
)
def test_a_body_that_is_not_a_result(body: bytes) -> None:
    """A body that is not a result is one clear error that quotes its beginning."""
    with pytest.raises(DecodeError) as caught:
        decode.job(body)
    assert caught.value.path == ""
    assert caught.value.excerpt == body.decode("utf-8", "replace")[:120]


@pytest.mark.parametrize("name", ["query.xml", "callback.json"])
def test_truncated_at_every_byte(name: str) -> None:
    """A truncated body is never taken for a whole one."""
    body = SAMPLES[name].rstrip()
    for length in range(len(body)):
        with pytest.raises(DecodeError):
            decode.job(body[:length])


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><Response>&b;</Response>',
        b'<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><Response>&a;</Response>',
        b'<!DOCTYPE r [<!ENTITY % a SYSTEM "http://127.0.0.1/x.dtd"> %a;]><Response/>',
    ],
)
def test_entities_are_refused(body: bytes) -> None:
    """No entity is expanded or fetched."""
    with pytest.raises(DecodeError, match=r"document types|entities"):
        decode.job(body)


@pytest.mark.parametrize(
    "inside",
    [
        "{}",
        "<Result>{}</Result>",
        "<Label>{}</Label>",
        "<PornInfo>{}</PornInfo>",
        "<PornInfo><Keywords>{}</Keywords></PornInfo>",
        "<UserInfo><A/></UserInfo><UserInfo>{}</UserInfo>",
        "<CreationTime>{}</CreationTime>",
        "<BrandNewInfo>{}</BrandNewInfo>",
    ],
)
def test_depth_bomb(inside: str) -> None:
    """A hundred thousand nested elements are an error in any place."""
    bomb = "<A>" * 100_000 + "</A>" * 100_000
    with pytest.raises(DecodeError):
        decode.job(response(inside.format(bomb)))


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"A":', "}")])
def test_depth_bomb_of_json(brackets: tuple[str, str]) -> None:
    """A hundred thousand nested JSON values are an error."""
    opening, closing = brackets
    bomb = opening * 100_000 + "1" + closing * 100_000
    with pytest.raises(DecodeError):
        decode.job(b'{"JobsDetail": {"JobId": "j", "State": "x", "A": %b}}' % bomb.encode())


@pytest.mark.parametrize("text", [0, 1.5, True, {"A": 1}])
def test_json_that_looks_like_xmltodict(text: object) -> None:
    """In JSON, the name that xmltodict uses for texts is a name like any other."""
    assert decode.job(callback(New={"#text": text})).extra == {"New": {"#text": text}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "iso-8859-1"])
def test_declared_encodings(encoding: str) -> None:
    """The declared encoding of a document is respected."""
    declared = "utf-8" if encoding == "utf-8-sig" else encoding.removesuffix("-le")
    text = f'<?xml version="1.0" encoding="{declared}"?>{response("<Label>é</Label>").decode()}'
    assert decode.job(text.encode(encoding)).label == "é"


@pytest.mark.parametrize("encoding", ["utf-32", "utf-7", "hex", "undefined", "idna", "none"])
def test_encodings_that_cannot_be_read(encoding: str) -> None:
    """A wrong or unknown encoding is a `DecodeError`."""
    body = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + response("<Label>é</Label>")
    with pytest.raises(DecodeError, match="not a document"):
        decode.job(body)


# Refusals

CI_ERROR = (
    b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message>"
    b"<RequestId>r1</RequestId><TraceId>t1</TraceId></Error>"
)
COS_ERROR = (
    b"<?xml version='1.0' encoding='utf-8' ?>\n<Error>\n\t<Code>SignatureDoesNotMatch</Code>\n"
    b"\t<Message>The Signature you specified is invalid.</Message>\n"
    b"\t<StringToSign>sha1\n1;2\nabc\n</StringToSign>\n\t<FormatString>get\n/\n</FormatString>\n"
    b"\t<Resource>bucket.ci.ap-beijing.myqcloud.com/video</Resource>\n"
    b"\t<RequestId>r2</RequestId>\n\t<TraceId>t2</TraceId>\n</Error>\n"
)
HTML = b"<html>\r\n<head><title>\n 502  Bad Gateway </title></head><body><hr>nginx</body></html>"
IDS = {"x-ci-request-id": "r3", "x-ci-trace-id": "t3"}
COS_IDS = {"x-cos-request-id": "r4", "x-cos-trace-id": "t4"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        pytest.param(
            403,
            {},
            CI_ERROR,
            (AccessDenied, "AccessDenied", "Access Denied.", "r1", "t1"),
            id="ci",
        ),
        pytest.param(
            403,
            IDS,
            COS_ERROR,
            (
                AccessDenied,
                "SignatureDoesNotMatch",
                "The Signature you specified is invalid.",
                "r2",
                "t2",
            ),
            id="cos, its own ids first",
        ),
        pytest.param(
            400,
            {},
            b'{"code": -65007, "message": "decode failure", "request_id": "r5"}',
            (InvalidArgument, "-65007", "decode failure", "r5", None),
            id="json",
        ),
        pytest.param(
            404,
            IDS,
            b"<Response><Error><Code>AuditingJobNotFound</Code></Error></Response>",
            (JobNotFound, "AuditingJobNotFound", "no reason given", "r3", "t3"),
            id="wrapped",
        ),
        pytest.param(
            400,
            {},
            b"<Error>\n<Code>\nAuditingJobNotFound\n</Code><Message> m </Message></Error>",
            (JobNotFound, "AuditingJobNotFound", "m", None, None),
            id="white space",
        ),
        pytest.param(
            502,
            COS_IDS,
            HTML,
            (ServiceUnavailable, "", "502 Bad Gateway", "r4", "t4"),
            id="html",
        ),
        pytest.param(
            500, {}, b"upstream\n down", (ServiceUnavailable, "", "upstream down", None, None)
        ),
        pytest.param(
            500, {}, b"\xff\xfe" * 500, (ServiceUnavailable, "", "\ufffd" * 120, None, None)
        ),
        pytest.param(404, {}, b"", (InvalidArgument, "", "no reason given", None, None)),
        pytest.param(
            301,
            {"location": "https://elsewhere.example"},
            b"<Error><Code>PermanentRedirect</Code><Message>moved</Message></Error>",
            (
                ServiceError,
                "PermanentRedirect",
                "redirected to https://elsewhere.example; redirects are not followed",
                None,
                None,
            ),
        ),
        pytest.param(
            307,
            {},
            b"<Error><Code>TemporaryRedirect</Code></Error>",
            (
                ServiceError,
                "TemporaryRedirect",
                "redirected to nowhere; redirects are not followed",
                None,
                None,
            ),
        ),
        pytest.param(600, {}, b"{}", (ServiceUnavailable, "", "{}", None, None)),
    ],
)
def test_refusal(
    status: int,
    headers: dict[str, str],
    body: bytes,
    expected: tuple[type[ServiceError], str, str, str | None, str | None],
) -> None:
    """The error has every fact that a refusal of any form contains."""
    error = decode.error(status, headers, body)
    said = (type(error), error.code, error.message, error.request_id, error.trace_id)
    assert (*said, error.status) == (*expected, status)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidArgument", InvalidArgument),
        (400, "MissingContent", InvalidArgument),
        (400, "InvalidContent", InvalidArgument),
        (400, "InvalidHost", InvalidArgument),
        (400, "ResourceNotFound", InvalidArgument),
        (400, "ResourceAccessDenied", InvalidArgument),
        (400, "ResourceDownloadFailed", InvalidArgument),
        (400, "CIRoleNotExist", AccessDenied),
        (400, "ResourceNotSupported", InvalidArgument),
        (400, "RequestTimeout", ServiceUnavailable),
        (400, "ExpiredToken", AccessDenied),
        (400, "MalformedXML", InvalidArgument),
        (400, "InvalidURI", InvalidArgument),
        (401, "MissingAuthorization", AccessDenied),
        (401, "InvalidAuthorization", AccessDenied),
        (401, "AccessDenied", AccessDenied),
        (401, "SecretidNotExist", AccessDenied),
        (401, "SignatureExpired", AccessDenied),
        (403, "AccessDenied", AccessDenied),
        (403, "MediaBucketAlreadyBinded", AccessDenied),
        (403, "RequestTimeTooSkewed", AccessDenied),
        (403, "SignatureDoesNotMatch", AccessDenied),
        (403, "InvalidAccessKeyId", AccessDenied),
        (403, "QueueSaturated", ServiceUnavailable),
        (403, "QueuePaused", ServiceError),
        (404, "InvalidUrl", InvalidArgument),
        (404, "AuditingJobNotFound", JobNotFound),
        (404, "NoSuchBucket", InvalidArgument),
        (411, "MissingContentLength", InvalidArgument),
        (413, "InvalidContent", InvalidArgument),
        (429, "SlowDown", Throttled),
        (429, "", Throttled),
        (429, "InternalError", Throttled),
        (451, "UnavailableForLegalReasons", ServiceError),
        (500, "InternalError", ServiceUnavailable),
        (501, "NotImplemented", ServiceError),
        (503, "ServiceUnavailable", ServiceUnavailable),
        (503, "SlowDown", Throttled),
        (503, "", ServiceUnavailable),
        (503, "RequestLimitExceeded", Throttled),
    ],
)
def test_kind_of_refusal(status: int, code: str, kind: type[ServiceError]) -> None:
    """Every code of the CI and COS tables has its class; without a code the status decides."""
    error = decode.error(status, {}, error_document(code, "why", "r"))
    assert (type(error), error.code, error.message) == (kind, code, "why")


@pytest.mark.parametrize(
    "body", [CI_ERROR, b"<Response>" + CI_ERROR + b"</Response>"], ids=["bare", "wrapped"]
)
def test_an_error_document_in_the_place_of_a_result(body: bytes) -> None:
    """An error document is raised as a `ServiceError` even if its status is 200."""
    with pytest.raises(ServiceError, match="Access Denied") as caught:
        decode.job(body)
    assert (caught.value.status, caught.value.code) == (200, "AccessDenied")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("3", 3.0),
        ("1.5", 1.5),
        ("-1", None),
        ("inf", math.inf),
        ("nan", None),
        ("1e999", math.inf),
        ("soon", None),
        ("", None),
        ("Thu, 15 Jun 2017 12:37:59 GMT", 30.0),
        ("Thu, 15 Jun 2017 20:37:59 +0800", 30.0),
        ("Thu, 15 Jun 2017 12:37:59 -0000", 30.0),
        ("Thu, 15 Jun 2017 12:37:00 GMT", None),
        ("Thu, 99 Jun 2017 12:37:59 GMT", None),
        ("Thu, 15 Jun 2017 12:37:59 +99999999999999", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Retry-After is seconds or a date relative to the response's own; nonsense is ignored."""
    headers = {"retry-after": value, "date": "Thu, 15 Jun 2017 12:37:29 GMT"}
    assert decode.error(503, headers, b"").retry_after == seconds


@pytest.mark.parametrize("headers", [{}, {"date": "x"}, {"retry-after": "x"}])
def test_retry_after_without_a_date(headers: dict[str, str]) -> None:
    """A Retry-After date is ignored without the date of the response."""
    headers = {"retry-after": "Thu, 15 Jun 2017 12:37:59 GMT", **headers}
    assert decode.error(503, headers, b"").retry_after is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("body", [b"<title>" * 200_000, b"<title" * 200_000], ids=["open", "cut"])
def test_a_refusal_is_read_in_linear_time(body: bytes) -> None:
    """No page of a proxy blocks the event loop."""
    assert decode.error(502, {}, body).message.startswith("<title")


# Rendering


def test_a_rendered_job_reads_the_same() -> None:
    """The emulator can send any job that was received."""
    job = decode.job(SAMPLES["complete.xml"])
    assert decode.job(render(job)) == job


@pytest.mark.parametrize(
    "inside",
    [
        "<New>a</New><New/>",
        "<New><A/><A>1</A></New>",
        "<New>mixed<A>1</A></New>",
        "<PornInfo>mixed<Score>1</Score></PornInfo>",
        "<ListInfo><ListResults><Entity>e</Entity></ListResults><New>1</New></ListInfo>",
        "<PornInfo><Keywords>a,b</Keywords></PornInfo>",
    ],
)
def test_render_keeps_unusual_nodes(inside: str) -> None:
    """Rendering writes everything that decoding kept."""
    job = decode.job(response(inside))
    assert decode.job(render(job)) == job


@pytest.mark.parametrize(
    "result", [SubmittedJob(job_id="j", state=JobState.SUBMITTED), CancelledJob(job_id="j")]
)
def test_the_other_results_read_the_same_when_rendered(result: SubmittedJob | CancelledJob) -> None:
    """A rendered submission or cancellation reads the same."""
    read = decode.submitted if isinstance(result, SubmittedJob) else decode.cancelled
    assert read(render(result)) == result


def test_error_document_of_the_gateway() -> None:
    """The additional nodes of the COS gateway do not hide the others."""
    body = error_document("AccessDenied", "a < b & c", "r", Resource="x")
    error = decode.error(403, {}, body)
    assert (error.code, error.message, error.request_id) == ("AccessDenied", "a < b & c", "r")


# Unlike in the official SDK, nothing received is evaluated


@pytest.mark.parametrize(
    "path", sorted(Path(ci_live_audit.__file__).parent.rglob("*.py")), ids=lambda path: path.name
)
def test_nothing_is_evaluated(path: Path) -> None:
    """No module names `eval`, `exec`, `compile` or `__import__`."""
    names = {
        node.id for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Name)
    }
    assert names.isdisjoint({"eval", "exec", "compile", "__import__"})


def test_decode_errors_have_the_base_of_the_library() -> None:
    """An unreadable body is a `LiveAuditError`."""
    with pytest.raises(LiveAuditError):
        decode.submitted(b"")


# Large bodies and equal scenes


def large(count: int = 3000, inside: str = "", around: str = "") -> bytes:
    """Return a response of more than 64 KB."""
    snapshots = "".join(
        f"<Snapshot><SnapshotTime>{n}</SnapshotTime>"
        "<AdsInfo><HitFlag>0</HitFlag><Score>0</Score></AdsInfo></Snapshot>"
        for n in range(count)
    )
    return (
        f"<Response><JobsDetail><JobId>j</JobId><State>Auditing</State>{snapshots}{inside}"
        f"</JobsDetail><RequestId>r</RequestId>{around}</Response>"
    ).encode()


def test_a_large_body_is_read_in_slices() -> None:
    """There is a pause after every 8 KB, and nothing is missing."""
    pauses: list[None] = []
    body = large(inside="<Novelty>kept</Novelty><Novelty>2</Novelty><Novelty>3</Novelty>")
    job = decode.job(body, pause=lambda: pauses.append(None))
    assert len(pauses) == -(-len(body) // 8192)
    assert [snapshot.snapshot_time for snapshot in job.snapshots] == list(range(3000))
    assert (job.job_id, job.request_id) == ("j", "r")
    assert job.extra == {"Novelty": ("kept", "2", "3")}
    assert decode.job(body) == job


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (large(inside="<Snapshot><Result>x</Result></Snapshot>"), "Snapshot[3000].Result"),
        (large(inside="<Snapshot>x</Snapshot>"), "Snapshot[3000]"),
        (large().replace(b"<HitFlag>0", b"<HitFlag>x", 1), "Snapshot[0].AdsInfo.HitFlag"),
        (large(inside="<Result>x</Result>"), "Result"),
    ],
)
def test_an_unreadable_value_in_a_large_body_has_its_path(body: bytes, path: str) -> None:
    """An unreadable value in a large body has the same path as in a small one."""
    job = decode.job(body)
    assert job.unreadable == (f"JobsDetail.{path}",)
    assert len(job.snapshots) == 3000 + (path == "Snapshot[3000].Result")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(large()[:-30], id="cut"),
        pytest.param(large(around="<JobsDetail></JobsDetail>"), id="two"),
        pytest.param(large().replace(b"Response>", b"Answer>"), id="no response"),
        pytest.param(b"<R><Response>" + large()[10:] + b"</R>", id="deeper"),
        pytest.param(large().replace(b"<Response>", b"<!DOCTYPE r [<!ENTITY e 'x'>]><Response>")),
    ],
)
def test_a_large_body_that_is_not_a_result(body: bytes) -> None:
    """A large body that is not a result is refused as a small one would be."""
    with pytest.raises(DecodeError, match=r"not a document|expected a Response"):
        decode.job(body)


def test_a_large_body_in_another_encoding() -> None:
    """The declared encoding of a large body is respected."""
    text = large(inside="<Label>\u9ed1</Label>").decode()
    body = ("<?xml version='1.0' encoding='utf-16'?>" + text).encode("utf-16")
    assert decode.job(body).label == "\u9ed1"
    declared = b"<?xml version='1.0' encoding='iso-8859-1'?>" + large(inside="<Label>X</Label>")
    assert decode.job(declared.replace(b">X<", b">\xe9<")).label == "\u00e9"


def test_equal_scenes_are_one_object() -> None:
    """Snapshots with equal scenes share one object, to save memory."""
    first, *others = decode.job(large(100)).snapshots
    assert all(other.ads is first.ads for other in others)


def test_equal_scenes_of_a_callback_are_told_apart() -> None:
    """In JSON true equals 1, but it is not a score."""
    scenes = [{"SnapshotTime": n, "AdsInfo": {"Score": score}} for n, score in enumerate([1, True])]
    job = decode.job(callback(Snapshot=scenes))
    assert [one.ads.score for one in job.snapshots if one.ads is not None] == [1, None]
    assert job.unreadable == ("JobsDetail.Snapshot[1].AdsInfo.Score",)


def test_the_number_of_shared_scenes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes beyond the bound are read again instead of shared."""
    monkeypatch.setattr("ci_live_audit.wire.results.MAX_SHARED", 1)
    scene = "<Snapshot><AdsInfo><Score>{}</Score></AdsInfo></Snapshot>"
    snapshots = "".join(scene.format(score) for score in (1, 2, 1, 2))
    job = decode.job(large(0, inside=snapshots))
    one, two, three, four = (snapshot.ads for snapshot in job.snapshots)
    assert one is three
    assert two == four
    assert two is not four
