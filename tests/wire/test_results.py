"""`decode`: every value of an answer in its place, and no body that it chokes on."""

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


def answer(inside: str = "", around: str = "") -> bytes:
    """A query's answer with more nodes in ``JobsDetail``, and around it."""
    must = "<JobId>j</JobId><State>Success</State>"
    return f"<Response><JobsDetail>{must}{inside}</JobsDetail>{around}</Response>".encode()


def callback(**details: Any) -> bytes:
    """A Detail callback with more names in ``JobsDetail``."""
    return json.dumps({"JobsDetail": {"JobId": "j", "State": "Success", **details}}).encode()


def every_result(value: Any) -> list[Result]:
    """The results in a value, itself included."""
    if isinstance(value, Result):
        fields = attrs.fields(type(value))  # type: ignore[arg-type]
        inside = [getattr(value, field.name) for field in fields]
        return [value, *every_result(inside)]
    if isinstance(value, ReadOnly):
        return every_result(list(value.values()))
    if isinstance(value, list | tuple):
        return [result for item in value for result in every_result(item)]
    return []


# The documents' samples


def test_query_sample() -> None:
    """Every value of the query document's sample stands in its place."""
    assert decode.job(SAMPLES["query.xml"]) == QUERY


def test_cancel_sample() -> None:
    """Every value of the cancel document's sample stands in its place."""
    assert decode.cancelled(SAMPLES["cancel.xml"]) == CancelledJob(
        job_id="vab1ca9fc8a3ed11ea834c525400863904",
        data_id="123-fdrsg-123",
        creation_time=datetime(2021, 8, 7, 12, 12, 12, tzinfo=SHANGHAI),
        request_id="xxxxxxxxxxxxxx",
    )


def test_submission() -> None:
    """A submission's answer is read, and what newer answers add to it is kept."""
    body = answer("<DataId>d</DataId><Url>rtmp://x</Url>", "<RequestId>r</RequestId>")
    assert decode.submitted(body) == SubmittedJob(
        job_id="j",
        data_id="d",
        state=JobState.SUCCESS,
        request_id="r",
        extra=ReadOnly({"Url": "rtmp://x"}),
    )


def test_complete_sample() -> None:
    """Every node that a document or an SDK names stands in its place, the others in `extra`."""
    assert decode.job(SAMPLES["complete.xml"], received_at=NOON) == COMPLETE


def test_complete_sample_is_complete() -> None:
    """No attribute of any result class is left at its default everywhere in the sample."""
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
    assert defaults - filled == set()


def test_detail_callback() -> None:
    """A callback's JSON gives the same types as a query's XML."""
    assert decode.job(SAMPLES["callback.json"]) == CALLBACK


@pytest.mark.parametrize("name", ["query", "cancel"])
def test_samples_as_printed_are_refused(name: str) -> None:
    """The documents print mismatched tags; they are an error, not half an answer."""
    with pytest.raises(DecodeError, match="mismatched tag"):
        decode.job(SAMPLES[f"{name}.malformed.xml"])


# Elements: repeated, single, empty, absent


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
def test_list_is_a_tuple_however_often_its_element_comes(inside: str, count: int) -> None:
    """No, one and several elements all give a tuple; empty ones count for nothing."""
    expected = tuple(Snapshot(text=text) for text in "ab"[:count])
    assert decode.job(answer(inside)).snapshots == expected


@pytest.mark.parametrize("node", ["", "<{0}/>", "<{0}></{0}>", "<{0}> \n </{0}>"])
@pytest.mark.parametrize("tag", ["Label", "Result", "CreationTime", "PornInfo", "UserInfo"])
def test_empty_element_is_as_good_as_none(node: str, tag: str) -> None:
    """The service's null is an empty element, whatever its type."""
    assert decode.job(answer(node.format(tag))) == AuditJob(job_id="j", state=JobState.SUCCESS)


@pytest.mark.parametrize("value", [None, "", " ", {}])
@pytest.mark.parametrize("tag", ["PornInfo", "UserInfo", "Snapshot", "CosHeaders"])
def test_empty_json_value_is_as_good_as_none(value: Any, tag: str) -> None:
    """JSON has more ways to say nothing."""
    assert decode.job(callback(**{tag: value})) == AuditJob(job_id="j", state=JobState.SUCCESS)


def test_element_with_only_empty_children_is_there() -> None:
    """What the service sent with nothing in it is not the same as what it did not send."""
    assert decode.job(answer("<PornInfo><HitFlag/></PornInfo>")).porn == Scene()


def test_white_space_around_a_text_is_part_of_it() -> None:
    """Only a text of nothing but white space is none."""
    snapshot = "<Snapshot><Text>\n a  b\t</Text><Label> </Label></Snapshot>"
    assert decode.job(answer(snapshot)).snapshots == (Snapshot(text="\n a  b\t"),)


def test_indentation_leaves_no_trace() -> None:
    """An indented answer is the same as one on a single line."""
    indented = "\n<ListInfo>\n <ListResults>\n  <Entity>e</Entity>\n </ListResults>\n</ListInfo>\n"
    flat = "".join(line.strip() for line in indented.splitlines())
    assert decode.job(answer(indented)) == decode.job(answer(flat))


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
    """One text is split at its commas and kept; repeated ones are taken as they are."""
    assert decode.job(answer(f"<PornInfo>{inside}<Score>1</Score></PornInfo>")).porn == Scene(
        score=1, keywords=keywords, keywords_raw=raw
    )


def test_keywords_of_json_are_not_split() -> None:
    """A JSON list says where a keyword ends, even if there is only one."""
    job = decode.job(callback(PornInfo={"Keywords": ["a,b"]}))
    assert job.porn == Scene(keywords=("a,b",))


@pytest.mark.parametrize(("first", "second"), [("Keyword", "Keywords"), ("Keywords", "Keyword")])
def test_both_spellings_at_once(first: str, second: str) -> None:
    """Of two spellings of one node the first is read and the second kept."""
    hit = f"<HitInfos><{first}>a</{first}><{second}>b</{second}></HitInfos>"
    porn = decode.job(answer(f"<PornInfo>{hit}</PornInfo>")).porn
    assert porn == Scene(hit_infos=(HitInfo(keywords=("a",), extra=ReadOnly({second: "b"})),))


# Scalars

HUGE = pytest.param(10**400, id="huge")  # more than a float can hold


@pytest.mark.parametrize(
    "value", ["0", " 7 ", "-1", "+7", "2147483648", "1649387157000", str(2**63 - 1), str(-(2**63))]
)
def test_integers_of_64_bits(value: str) -> None:
    """Integers come as texts and reach 64 bits."""
    snapshot = f"<Snapshot><SnapshotTime>{value}</SnapshotTime></Snapshot>"
    (found,) = decode.job(answer(snapshot)).snapshots
    assert found.snapshot_time == int(value)


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_integers_of_json(value: object) -> None:
    """JSON may say an integer in three ways."""
    count = decode.job(callback(SnapshotCount=value)).snapshot_count
    assert (count, type(count)) == (7, int)


@pytest.mark.parametrize(
    "value",
    [
        *("x", "1.5", "1e3", "1_000", "0x1", "1 2", str(2**63), str(-(2**63) - 1)),
        pytest.param("\u0661", id="Arabic digit"),
        pytest.param("9" * 5000, id="huge"),
    ],
)
def test_not_an_integer(value: str) -> None:
    """A text that only Python takes for an integer is none of the service's."""
    with pytest.raises(DecodeError) as caught:
        decode.job(answer(f"<PornInfo><Score>{value}</Score></PornInfo>"))
    assert caught.value.path == "JobsDetail.PornInfo.Score"


@pytest.mark.parametrize("value", [True, 1.5, 1e300, HUGE, [1], {}])
def test_not_an_integer_in_json(value: object) -> None:
    """Neither is every JSON value."""
    with pytest.raises(DecodeError) as caught:
        decode.job(callback(SnapshotCount=value))
    assert caught.value.path == "JobsDetail.SnapshotCount"


@pytest.mark.parametrize("value", ["x", "nan", "-inf", "1e999", "1_0", True, HUGE, [1]])
def test_not_a_number(value: object) -> None:
    """A coordinate is a finite number."""
    results = [{"Location": {"X": value}}]
    with pytest.raises(DecodeError) as caught:
        decode.job(callback(PornInfo={"OcrResults": results}))
    assert caught.value.path == "JobsDetail.PornInfo.OcrResults[0].Location.X"


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999"])
def test_what_only_python_takes_for_json(value: str) -> None:
    """Numbers that are none make no document, wherever they stand."""
    with pytest.raises(DecodeError, match="is no number"):
        decode.job(callback(Novelty="here").replace(b'"here"', value.encode()))
    assert decode.job(callback(Novelty=1.5)).extra["Novelty"] == 1.5


@pytest.mark.parametrize(
    "zone", ["+0800", "+08:00", "+08", pytest.param(".000+0800", id="milliseconds")]
)
def test_time_zone_spellings(zone: str) -> None:
    """Queries and callbacks spell the zone differently."""
    job = decode.job(answer(f"<CreationTime> 2021-08-07T12:12:12{zone}\n</CreationTime>"))
    assert job.creation_time == datetime(2021, 8, 7, 12, 12, 12, tzinfo=SHANGHAI)
    assert job.creation_time.utcoffset() == timedelta(hours=8)


@pytest.mark.parametrize("value", ["2021-08-07T12:12:12", "2021-08-07", "yesterday", 0, [], {}])
def test_not_a_time(value: object) -> None:
    """A time without its zone is as unreadable as no time at all."""
    with pytest.raises(DecodeError, match="a time with its zone") as caught:
        decode.job(callback(CreationTime=value))
    assert caught.value.path == "JobsDetail.CreationTime"


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false")])
def test_texts_that_json_sends_as_truth_values(value: object, text: str) -> None:
    """A truth value in the place of a text is spelled as JSON spells it."""
    assert decode.job(callback(Code=value)).code == text


def test_texts_that_json_sends_as_numbers() -> None:
    """What the documents call a text stays one if the callback sends a number."""
    job = decode.job(callback(Code=-65007, Label=1.5, DataId=0))
    assert (job.code, job.label, job.data_id) == ("-65007", "1.5", "0")


def test_words_of_the_service_that_nobody_knows_yet() -> None:
    """An unknown state, judgement or hit flag stays readable."""
    job = decode.job(
        callback(State=" Paused ", Result=9, PornInfo={"HitFlag": -1}, Snapshot={"Result": "3"})
    )
    assert (job.state, job.state.value, job.ended) == ("Paused", "Paused", False)
    assert (job.result, job.snapshots[0].result) == (9, 3)
    assert job.porn is not None
    assert job.porn.hit_flag == -1


# Nodes that no document names


def test_unknown_node_is_kept_nearest() -> None:
    """A new node is found beside its neighbours, with all that is in it."""
    new = "<New><A>1</A><A>2</A><B/><C><D> x </D></C>mixed</New>"
    kept = {"A": ("1", "2"), "B": None, "C": {"D": " x "}, "#text": "mixed"}
    job = decode.job(answer(f"<PornInfo>{new}</PornInfo><Snapshot>{new}</Snapshot>{new}", new))
    assert job.porn == Scene(extra=ReadOnly({"New": kept}))
    assert job.snapshots == (Snapshot(extra=ReadOnly({"New": kept})),)
    assert job.extra == {"New": kept, "Response.New": kept}


def test_json_beside_the_details_is_kept() -> None:
    """A callback's own fields stand in the job's `extra`."""
    body = b'{"JobsDetail": {"JobId": "j", "State": "x", "A": 1}, "A": [true, null], "B": {}}'
    assert decode.job(body).extra == {"A": 1, "Response.A": (True, None), "B": {}}


def test_both_request_ids_are_kept() -> None:
    """A request id within the details does not get lost behind the one beside them."""
    job = decode.job(answer("<RequestId>inner</RequestId>", "<RequestId>outer</RequestId>"))
    assert job.request_id == "outer"
    assert "inner" in job.extra.values()


def test_request_id_within_the_details_will_do() -> None:
    """Wherever the request id stands, it is found."""
    assert decode.job(answer("<RequestId>inner</RequestId>")).request_id == "inner"


def test_text_between_elements_is_kept() -> None:
    """Text that no document expects is kept, the white space around it as well."""
    job = decode.job(answer("<PornInfo> note <Score>1</Score></PornInfo> more ", "<RequestId/>"))
    assert job.porn == Scene(score=1, extra=ReadOnly({"#text": " note "}))
    assert job.extra == {"#text": " more "}


@pytest.mark.parametrize("tag", ["BrandNewInfo", "XInfo"])
def test_unknown_scene(tag: str) -> None:
    """A container of an unknown name that reads as a scene is one."""
    job = decode.job(answer(f"<{tag}><HitFlag>1</HitFlag><New>2</New></{tag}>"))
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
def test_info_that_is_no_scene(inside: str, kept: dict[str, object]) -> None:
    """What only has a scene's name is kept like any unknown node."""
    job = decode.job(answer(inside))
    assert (job.scenes, job.extra) == ({}, kept)


@pytest.mark.parametrize("value", [0, False])
@pytest.mark.parametrize("tag", ["PornInfo", "UserInfo", "Snapshot"])
def test_false_is_not_nothing(tag: str, value: object) -> None:
    """A JSON zero or false in place of an object is an error as any other number is."""
    with pytest.raises(DecodeError) as caught:
        decode.job(callback(**{tag: value}))
    assert caught.value.path.startswith(f"JobsDetail.{tag}")


# The path to what cannot be read


@pytest.mark.parametrize(
    ("inside", "path"),
    [
        ("<Result>x</Result>", "Result"),
        ("<Result><A/></Result>", "Result"),
        ("<Result>1</Result><Result>2</Result>", "Result"),
        ("<State/><State>Success</State>", "State"),
        ("<Label><A/></Label>", "Label"),
        ("<CosHeaders>x</CosHeaders>", "CosHeaders"),
        ("<PornInfo>x</PornInfo>", "PornInfo"),
        ("<PornInfo><HitFlag>x</HitFlag></PornInfo>", "PornInfo.HitFlag"),
        ("<PornInfo><Score>1</Score></PornInfo>" * 2, "PornInfo"),
        ("<PornInfo><Keywords><A/></Keywords></PornInfo>", "PornInfo.Keywords"),
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
        (f"<New>{'<A>' * 70}{'</A>' * 70}</New>", "New"),
        (f"<BrandNewInfo>{'<A>' * 70}{'</A>' * 70}</BrandNewInfo>", "BrandNewInfo"),
    ],
)
def test_path_of_what_cannot_be_read(inside: str, path: str) -> None:
    """An error names the very node, and so does its text."""
    with pytest.raises(DecodeError) as caught:
        decode.job(answer(inside))
    assert caught.value.path == f"JobsDetail.{path}"
    assert str(caught.value).startswith(f"JobsDetail.{path}: ")


def test_path_beside_the_details() -> None:
    """What is unreadable beside the details is not said to be in them."""
    with pytest.raises(DecodeError) as caught:
        decode.job(answer("", "<RequestId><A/></RequestId>"))
    assert caught.value.path == "RequestId"


def test_excerpt_is_what_could_not_be_read() -> None:
    """The beginning of the value comes with the error, and only that."""
    with pytest.raises(DecodeError) as caught:
        decode.job(answer(f"<Result>{'x' * 10_000}</Result>"))
    assert caught.value.excerpt == "x" * 120


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
def test_what_an_answer_must_have(body: bytes, path: str) -> None:
    """A job without its id or its state is no job."""
    with pytest.raises(DecodeError, match="missing") as caught:
        decode.job(body)
    assert caught.value.path == f"JobsDetail.{path}"


# Time


def test_urls_expire_two_hours_after_they_came() -> None:
    """A job that knows when it came knows how long its URLs work."""
    job = decode.job(SAMPLES["query.xml"], received_at=NOON)
    assert job.received_at == NOON
    assert job.snapshots[0].url_expires_at == NOON + timedelta(hours=2)
    assert job.audio_sections[0].url_expires_at == NOON + timedelta(hours=2)


# Answers without content


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_cancellation_without_a_body(body: bytes) -> None:
    """The status says that the job was cancelled; the body need not."""
    assert decode.cancelled(body, job_id="j") == CancelledJob(job_id="j")


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
        pytest.param(answer().replace(b"</Resp", b"<JobsDetail><A/></JobsDetail></Resp"), id="two"),
        pytest.param(answer() + answer(), id="two documents"),
        pytest.param(answer("\0"), id="nul inside"),
        pytest.param(answer("<Label>&nbsp;</Label>"), id="entity of html"),
        pytest.param(b"\n<?xml version='1.0'?>" + answer(), id="declaration not first"),
        pytest.param(answer("<Label>\u00e9</Label>").decode().encode("latin-1"), id="latin-1"),
        pytest.param(b"{}", id="empty json"),
        pytest.param(b'{"JobsDetail": []}', id="json list"),
        pytest.param(b'{"JobsDetail": {"JobId": "j"', id="cut json"),
        pytest.param(b'[{"JobsDetail": {}}]', id="json in a list"),
        pytest.param(b'{"code": 0, "message": "success", "data": {}}', id="simple callback"),
        pytest.param(b'{"JobsDetail": {"JobId": "j", "A": ' + b"9" * 5000 + b"}}", id="huge int"),
    ],
)
def test_not_an_answer(body: bytes) -> None:
    """What is no answer as a whole is one clear error that quotes its beginning."""
    with pytest.raises(DecodeError) as caught:
        decode.job(body)
    assert caught.value.path == ""
    assert caught.value.excerpt == body.decode("utf-8", "replace")[:120]


@pytest.mark.parametrize("name", ["query.xml", "callback.json"])
def test_truncated_at_every_byte(name: str) -> None:
    """Half an answer is never taken for a whole one."""
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
    """No entity is expanded, none is fetched."""
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
    """A hundred thousand nested elements are an error wherever they stand."""
    bomb = "<A>" * 100_000 + "</A>" * 100_000
    with pytest.raises(DecodeError):
        decode.job(answer(inside.format(bomb)))


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"A":', "}")])
def test_depth_bomb_of_json(brackets: tuple[str, str]) -> None:
    """Nested JSON is an error as well."""
    opening, closing = brackets
    bomb = opening * 100_000 + "1" + closing * 100_000
    with pytest.raises(DecodeError):
        decode.job(b'{"JobsDetail": {"JobId": "j", "State": "x", "A": %b}}' % bomb.encode())


@pytest.mark.parametrize("text", [0, 1.5, True, {"A": 1}])
def test_json_that_looks_like_xmltodict(text: object) -> None:
    """A JSON name that xmltodict reserves for itself is a name like any other."""
    assert decode.job(callback(New={"#text": text})).extra == {"New": {"#text": text}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "iso-8859-1"])
def test_declared_encodings(encoding: str) -> None:
    """A document may say how it is encoded."""
    declared = "utf-8" if encoding == "utf-8-sig" else encoding.removesuffix("-le")
    text = f'<?xml version="1.0" encoding="{declared}"?>{answer("<Label>é</Label>").decode()}'
    assert decode.job(text.encode(encoding)).label == "é"


@pytest.mark.parametrize("encoding", ["gbk", "utf-32", "utf-7", "hex", "undefined", "idna", "none"])
def test_encodings_that_cannot_be_read(encoding: str) -> None:
    """An encoding that is wrong or unknown is an error, not a crash."""
    body = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + answer("<Label>é</Label>")
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
    """Whatever a refusal looks like, it tells as much as it can."""
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
    """Every code of the CI and COS tables has its class; without one the status decides."""
    error = decode.error(status, {}, error_document(code, "why", "r"))
    assert (type(error), error.code, error.message) == (kind, code, "why")


@pytest.mark.parametrize(
    "body", [CI_ERROR, b"<Response>" + CI_ERROR + b"</Response>"], ids=["bare", "wrapped"]
)
def test_refusal_in_place_of_an_answer(body: bytes) -> None:
    """An error document is raised as such, even with a status that says all is well."""
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
    """Seconds or a date, which counts from the answer's own date; nonsense is ignored."""
    headers = {"retry-after": value, "date": "Thu, 15 Jun 2017 12:37:29 GMT"}
    assert decode.error(503, headers, b"").retry_after == seconds


@pytest.mark.parametrize("headers", [{}, {"date": "x"}, {"retry-after": "x"}])
def test_retry_after_without_a_date(headers: dict[str, str]) -> None:
    """A date alone does not tell how long to wait."""
    headers = {"retry-after": "Thu, 15 Jun 2017 12:37:59 GMT", **headers}
    assert decode.error(503, headers, b"").retry_after is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("body", [b"<title>" * 200_000, b"<title" * 200_000], ids=["open", "cut"])
def test_refusal_is_read_in_linear_time(body: bytes) -> None:
    """No page of whatever proxy holds the event loop up."""
    assert decode.error(502, {}, body).message.startswith("<title")


# The way back


def test_render_gives_an_answer_that_reads_the_same() -> None:
    """The emulator can send any job that was ever received."""
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
def test_render_keeps_what_is_unusual(inside: str) -> None:
    """What decoding kept, rendering writes."""
    job = decode.job(answer(inside))
    assert decode.job(render(job)) == job


@pytest.mark.parametrize(
    "result", [SubmittedJob(job_id="j", state=JobState.SUBMITTED), CancelledJob(job_id="j")]
)
def test_render_of_the_other_answers(result: SubmittedJob | CancelledJob) -> None:
    """The answers to a submission and to a cancellation read the same as well."""
    read = decode.submitted if isinstance(result, SubmittedJob) else decode.cancelled
    assert read(render(result)) == result


def test_error_document_of_the_gateway() -> None:
    """The COS gateway's additional nodes do not hide the others."""
    body = error_document("AccessDenied", "a < b & c", "r", Resource="x")
    error = decode.error(403, {}, body)
    assert (error.code, error.message, error.request_id) == ("AccessDenied", "a < b & c", "r")


# The official SDK evaluates what it received


@pytest.mark.parametrize(
    "path", sorted(Path(ci_live_audit.__file__).parent.rglob("*.py")), ids=lambda path: path.name
)
def test_nothing_is_evaluated(path: Path) -> None:
    """No module runs text as code: neither `eval` nor `exec` nor `compile` is ever named."""
    names = {
        node.id for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Name)
    }
    assert names.isdisjoint({"eval", "exec", "compile", "__import__"})


def test_decode_errors_are_ours() -> None:
    """Whoever catches the library's base error catches an unreadable answer."""
    with pytest.raises(LiveAuditError):
        decode.submitted(b"")


# Large bodies, and snapshots that look alike


def large(count: int = 3000, inside: str = "", around: str = "") -> bytes:
    """An answer of more than 64 KB."""
    snapshots = "".join(
        f"<Snapshot><SnapshotTime>{n}</SnapshotTime>"
        "<AdsInfo><HitFlag>0</HitFlag><Score>0</Score></AdsInfo></Snapshot>"
        for n in range(count)
    )
    return (
        f"<Response><JobsDetail><JobId>j</JobId><State>Auditing</State>{snapshots}{inside}"
        f"</JobsDetail><RequestId>r</RequestId>{around}</Response>"
    ).encode()


def test_a_large_body_is_read_piece_by_piece() -> None:
    """There is a pause after every few KB, and nothing is missing."""
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
        (large(inside="<Result>x</Result>"), "Result"),
    ],
)
def test_a_value_in_a_large_body_has_its_place(body: bytes, path: str) -> None:
    """An unreadable value names its path as in a small body."""
    with pytest.raises(DecodeError) as caught:
        decode.job(body)
    assert caught.value.path == f"JobsDetail.{path}"


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
def test_a_large_body_that_is_none(body: bytes) -> None:
    """What is not what it looks like is refused as it would be if it were small."""
    with pytest.raises(DecodeError, match=r"not a document|expected a Response"):
        decode.job(body)


def test_a_large_body_in_another_encoding() -> None:
    """A declared encoding is heeded."""
    text = large(inside="<Label>\u9ed1</Label>").decode()
    body = ("<?xml version='1.0' encoding='utf-16'?>" + text).encode("utf-16")
    assert decode.job(body).label == "\u9ed1"
    declared = b"<?xml version='1.0' encoding='iso-8859-1'?>" + large(inside="<Label>X</Label>")
    assert decode.job(declared.replace(b">X<", b">\xe9<")).label == "\u00e9"


def test_scenes_that_look_alike_are_one_object() -> None:
    """A night of clean snapshots takes no more memory than it must."""
    first, *others = decode.job(large(100)).snapshots
    assert all(other.ads is first.ads for other in others)


def test_scenes_of_a_callback_are_told_apart() -> None:
    """In JSON true equals 1, but true is no flag."""
    scenes = [{"SnapshotTime": n, "AdsInfo": {"HitFlag": flag}} for n, flag in enumerate([1, True])]
    details = {"JobId": "j", "State": "Auditing", "Snapshot": scenes}
    with pytest.raises(DecodeError) as caught:
        decode.job(json.dumps({"JobsDetail": details}).encode())
    assert caught.value.path == "JobsDetail.Snapshot[1].AdsInfo.HitFlag"


def test_of_scenes_that_all_differ_not_all_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered to be shared has a bound."""
    monkeypatch.setattr("ci_live_audit.wire.nodes.MAX_SHARED", 1)
    scene = "<Snapshot><AdsInfo><Score>{}</Score></AdsInfo></Snapshot>"
    snapshots = "".join(scene.format(score) for score in (1, 2, 1, 2))
    job = decode.job(large(0, inside=snapshots))
    one, two, three, four = (snapshot.ads for snapshot in job.snapshots)
    assert one is three
    assert two == four
    assert two is not four
