"""Requests: exactly what is sent, and what is refused before anything is sent."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ci_live_audit.errors import ConfigurationError
from ci_live_audit.models import UserInfo
from ci_live_audit.wire import endpoint, requests
from ci_live_audit.wire.requests import Request

JOB = "av0123456789abcdef0123456789abcdef"
LIVE = "rtmp://live.example.com/app/room7"
BUCKET = "examplebucket-1250000000"

HOSTILE_JOB_IDS = [
    *("", " ", "\t", "a b", " a", "a ", "a\n", "\na", "a\r\nHost: b", "a\0", "\0", "\x7f", "a\x1f"),
    *("a/b", "/a", "a/", "//evil.example.com", "..", ".", "../x", "a/../b", "../../cos", "..\\x"),
    *("%2e%2e", "%2E%2E%2Fx", "a%2Fb", "a%00", "%", "..%c0%af", "%252e"),
    *("?x=1", "a?b", "a#f", "#", "a;b", "a&b=c", "a=b", "a:b", "a@b", "a+b", "a,b", "a*", "~a"),
    *("a.b", "a'b", 'a"b', "a<b>", "{a}", "[a]", "$a", "`a`", "a|b", "!", "(a)"),
    *("\u0430v12", "\uff41", "\u0661\u0662", "\uff11", "\u00b2", "\u00e9", "\u2024", "\ud800"),
    *("\u202ea", "a\u200b", "\ufeffa", "a\u2028", "\U0001f4a9", "a" * 129, "a" * 10_000),
    *(None, 5, 0, 1.5, True, b"av01", ["av01"], ("av01",), {"a": 1}, ...),
]
HOSTILE_BUCKETS = [
    *("", "examplebucket", "1250000000", "-1250000000", "examplebucket-", "examplebucket-x"),
    *("examplebucket-1234", "examplebucket-1234567890123", "a" * 51 + "-1250000000"),
    *("Examplebucket-1250000000", "-a-1250000000", "a--1250000000", "a_b-1250000000"),
    *("a.b-1250000000", "a/b-1250000000", "a b-1250000000", "a@b-1250000000", "a:b-1250000000"),
    *("evil.example.com/a-1250000000", "evil.example.com#a-1250000000", "a?-1250000000"),
    *("a\\b-1250000000", "a%2e-1250000000", "a\0-1250000000", "\u0430-1250000000", "a-1250\u0661"),
    *("a-1250000000\n", "\na-1250000000", "a-1250000000 ", " a-1250000000", "a-1250000000.evil"),
    *("a-1250000000/..", "a-1250000000@evil", "a-1250000000:80", "a-1250000000\r\nX: y", "../-125"),
    *(None, 1250000000, b"a-1250000000", ["a-1250000000"], True, ...),
]
HOSTILE_REGIONS = [
    *("", "ap", "beijing", "ap-", "-beijing", "ap--beijing", "ap_beijing", "a-beijing"),
    *("apx-beijing", "AP-beijing", "ap-Beijing", "ap-beijing-", "ap-a-b-c-d", "ap-" + "a" * 21),
    *("ap-beijing.evil.example.com", "ap-beijing/", "ap-beijing/..", "ap-beijing#", "ap-beijing?a"),
    *("ap-beijing@evil", "ap-beijing:80", "ap-beijing\n", "\nap-beijing", "ap-beijing\r\nX: y"),
    *(" ap-beijing", "ap-beijing ", "ap beijing", "ap-bei\0jing", "ap-beijing\0", "ap\\beijing"),
    *("ap-%62eijing", "ap-beij\u0456ng", "\u0430p-beijing", "ap-\uff41", "ap-\u0661", "1p-beijing"),
    *("ap.beijing", "ap-bei.jing", "ap-bei_jing", "ap-*", "evil.com/ap-beijing", "ap-\ud800"),
    *(None, 5, b"ap-beijing", ["ap-beijing"], True, ...),
]
NOT_XML = ["a\0", "\x01", "\x0b", "a\x1fb", "\ud800", "\udfff", "\ufffe", "\uffff"]


def sent(**arguments: Any) -> ET.Element:
    """Return the body of a submission as an XML parser reads it."""
    return ET.fromstring(requests.submit(LIVE, **arguments).body)


def test_query_is_a_get_of_the_job() -> None:
    """A query has no body and no headers, and may be repeated."""
    assert requests.query(JOB) == Request(
        operation="query",
        method="GET",
        path=f"/video/auditing/{JOB}",
        headers={},
        body=b"",
        idempotent=True,
        job_id=JOB,
    )


def test_cancel_is_an_empty_post_to_the_job() -> None:
    """A cancellation declares that it is empty (411 otherwise), and may be repeated."""
    assert requests.cancel(JOB) == Request(
        operation="cancel",
        method="POST",
        path=f"/video/cancel_auditing/{JOB}",
        headers={"content-length": "0"},
        body=b"",
        idempotent=True,
        job_id=JOB,
    )


def test_submit_with_only_a_url() -> None:
    """The shortest submission has an empty `Conf`, and must not be repeated."""
    body = (
        f"<Request><Input><Url>{LIVE}</Url></Input><Conf></Conf><Type>live_video</Type></Request>"
    ).encode()
    assert requests.submit(LIVE) == Request(
        operation="submit",
        method="POST",
        path="/video/auditing",
        headers={"content-type": "application/xml", "content-length": str(len(body))},
        body=body,
        idempotent=False,
        job_id=None,
    )


def test_submit_with_every_argument() -> None:
    """Each argument is written to its documented node, with its text escaped."""
    request = requests.submit(
        "https://live.example.com/room.flv?a=1&b=2",
        biz_type="b81d45f9",
        data_id="<7> & 直播",
        user_info=UserInfo(
            token_id="t",
            nickname="n",
            device_id="d",
            app_id="a",
            room="r",
            ip="10.0.0.1",
            type="y",
            receive_token_id="rt",
            gender="g",
            level="l",
            role="o",
        ),
        callback="https://example.com/hook",
        callback_type=2,
        storage_path="recordings/room7",
    )
    assert request.body.decode() == (
        "<Request>"
        "<Input>"
        "<Url>https://live.example.com/room.flv?a=1&amp;b=2</Url>"
        "<DataId>&lt;7&gt; &amp; 直播</DataId>"
        "<UserInfo>"
        "<TokenId>t</TokenId><Nickname>n</Nickname><DeviceId>d</DeviceId><AppId>a</AppId>"
        "<Room>r</Room><IP>10.0.0.1</IP><Type>y</Type><ReceiveTokenId>rt</ReceiveTokenId>"
        "<Gender>g</Gender><Level>l</Level><Role>o</Role>"
        "</UserInfo>"
        "</Input>"
        "<Conf>"
        "<BizType>b81d45f9</BizType><Callback>https://example.com/hook</Callback>"
        "<CallbackType>2</CallbackType>"
        "</Conf>"
        "<StorageConf><Path>recordings/room7</Path></StorageConf>"
        "<Type>live_video</Type>"
        "</Request>"
    )
    assert request.headers["content-length"] == str(len(request.body))


# The job id


@pytest.mark.parametrize("job_id", ["a", "-", "_", "0", "A-Z_z9", JOB, "a" * 128])
def test_job_ids_of_the_alphabet_are_accepted(job_id: str) -> None:
    """An id of 1 to 128 letters, digits, `_` and `-` is used as it is."""
    assert requests.query(job_id).path == f"/video/auditing/{job_id}"
    assert requests.cancel(job_id).path == f"/video/cancel_auditing/{job_id}"


@pytest.mark.parametrize("build", [requests.query, requests.cancel])
@pytest.mark.parametrize("job_id", HOSTILE_JOB_IDS, ids=repr)
def test_every_other_job_id_is_refused(build: Any, job_id: Any) -> None:
    """An id that could leave its segment of the path, or is not a text, is refused."""
    with pytest.raises(ConfigurationError, match=r"\Ajob_id: "):
        build(job_id)


def test_a_long_job_id_is_not_repeated_in_full() -> None:
    """The message about a megabyte of text is short."""
    with pytest.raises(ConfigurationError) as caught:
        requests.query("/" * 1_000_000)
    assert len(str(caught.value)) < 250


@given(st.text(st.characters()) | st.from_regex(r"[\w%./-]{1,130}", fullmatch=True))
@example("a\n")
def test_no_job_id_changes_the_path(job_id: str) -> None:
    """An accepted id is one whole segment of the URL."""
    try:
        request = requests.query(job_id)
    except ConfigurationError:
        return
    url = urlsplit(f"https://host.example.com{request.path}")
    assert (url.hostname, url.query, url.fragment) == ("host.example.com", "", "")
    assert url.path.split("/") == ["", "video", "auditing", job_id]
    assert set(job_id) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


# Texts


@pytest.mark.parametrize(
    "text", ["a" * 512, "é" * 256, "直" * 170, "\U0001f4a9" * 128], ids=["1", "2", "3", "4"]
)
def test_a_data_id_of_512_bytes_is_sent(text: str) -> None:
    """The limit is inclusive and counts bytes of UTF-8."""
    assert len(text.encode()) in {510, 512}
    assert sent(data_id=text).findtext("Input/DataId") == text


@pytest.mark.parametrize(
    "text", ["a" * 513, "é" * 257, "直" * 171, "\U0001f4a9" * 129], ids=["1", "2", "3", "4"]
)
def test_a_data_id_over_512_bytes_is_refused(text: str) -> None:
    """A longer id is refused, however few characters it has, and the message has the numbers."""
    size = len(text.encode())
    with pytest.raises(ConfigurationError, match=rf"\Adata_id: at most 512 bytes .*, got {size}\Z"):
        requests.submit(LIVE, data_id=text)


USER_FIELDS = {
    "token_id": "TokenId",
    "nickname": "Nickname",
    "device_id": "DeviceId",
    "app_id": "AppId",
    "room": "Room",
    "ip": "IP",
    "type": "Type",
    "receive_token_id": "ReceiveTokenId",
    "gender": "Gender",
    "level": "Level",
    "role": "Role",
}


@pytest.mark.parametrize(("name", "tag"), USER_FIELDS.items())
def test_each_user_field_has_128_bytes(name: str, tag: str) -> None:
    """Every field of a user is written under its own tag, up to 128 bytes and not one more."""
    fields: dict[str, Any] = {name: "é" * 64}
    assert sent(user_info=UserInfo(**fields)).findtext(f"Input/UserInfo/{tag}") == "é" * 64
    fields[name] += "a"
    with pytest.raises(ConfigurationError, match=rf"\Auser_info\.{name}: at most 128 .*, got 129"):
        requests.submit(LIVE, user_info=UserInfo(**fields))


def test_unknown_fields_of_a_user_are_sent_too() -> None:
    """The user of a finished job, with nodes unknown to this library, can be submitted again."""
    user = UserInfo(room="7", extra={"Team": "red"})
    assert sent(user_info=user).findtext("Input/UserInfo/Team") == "red"


def test_unknown_fields_of_a_user_do_not_replace_known_ones() -> None:
    """Two values for one node of a user are a conflict, as in `extra`."""
    with pytest.raises(ConfigurationError, match=r"user_info.*TokenId"):
        requests.submit(LIVE, user_info=UserInfo(token_id="a", extra={"TokenId": "b"}))


@pytest.mark.parametrize("text", NOT_XML, ids=ascii)
@pytest.mark.parametrize("name", ["biz_type", "data_id", "storage_path"])
def test_characters_that_xml_cannot_carry_are_refused(name: str, text: str) -> None:
    """Control characters, lone surrogates and non-characters are refused by name and position."""
    arguments: dict[str, Any] = {name: text}
    with pytest.raises(ConfigurationError, match=rf"\A{name}: .* at \d cannot be sent in XML"):
        requests.submit(LIVE, **arguments)


@pytest.mark.parametrize("text", NOT_XML, ids=ascii)
@pytest.mark.parametrize("name", USER_FIELDS)
def test_characters_that_xml_cannot_carry_are_refused_in_a_user(name: str, text: str) -> None:
    """Such characters are refused in each field of a user, which the message names."""
    fields: dict[str, Any] = {name: text}
    with pytest.raises(ConfigurationError, match=rf"\Auser_info\.{name}: .* cannot be sent in XML"):
        requests.submit(LIVE, user_info=UserInfo(**fields))


@pytest.mark.parametrize("value", [5, 1.5, True, b"text", ["text"], {"a": "b"}], ids=repr)
@pytest.mark.parametrize("name", ["url", "biz_type", "data_id", "callback", "storage_path"])
def test_a_text_must_be_a_str(name: str, value: Any) -> None:
    """A value of another type is refused, not turned into a text."""
    arguments: dict[str, Any] = {"url": LIVE, name: value}
    with pytest.raises(ConfigurationError, match=rf"\A{name}: expected a text, got \w+\Z"):
        requests.submit(**arguments)


@pytest.mark.parametrize("value", ["room7", {"room": "7"}, UserInfo, 5], ids=repr)
def test_a_user_must_be_a_user_info(value: Any) -> None:
    """A mapping is not taken for a user, as its names could have either spelling."""
    with pytest.raises(ConfigurationError, match=r"\Auser_info: expected UserInfo, got \w+\Z"):
        requests.submit(LIVE, user_info=value)


def test_a_user_field_must_be_a_text() -> None:
    """A number in a user is refused under the field's name."""
    level: Any = 5
    with pytest.raises(ConfigurationError, match=r"\Auser_info\.level: expected a text, got int"):
        requests.submit(LIVE, user_info=UserInfo(level=level))


class Known(str, Enum):  # noqa: UP042 - this kind, unlike StrEnum, prints as Known.ROOM
    ROOM = "b81d45f9"


def test_an_enum_of_texts_is_sent_as_its_text() -> None:
    """An enum of texts is sent as the text that was checked, not as it prints."""
    assert sent(biz_type=Known.ROOM).findtext("Conf/BizType") == "b81d45f9"


def test_an_enum_of_job_ids_is_sent_as_its_text() -> None:
    """The path contains the id that was checked, not what the enum prints."""
    assert requests.query(Known.ROOM).path == "/video/auditing/b81d45f9"


@given(st.text(st.characters(), max_size=300) | st.text("\t\n\r <>&'\"]\u0085\u2028", max_size=20))
@example("a\r\nb\rc\n")
@example("]]>")
@example("&#13;<!--")
def test_a_text_arrives_as_it_was_given(text: str) -> None:
    """An XML parser reads an accepted text as it was given, line ends included."""
    try:
        body = sent(data_id=text)
    except ConfigurationError:
        return
    assert body.findtext("Input/DataId", default="") == text


# URLs and callbacks


@pytest.mark.parametrize(
    "url",
    [
        *("rtmp://a/b", "hls://a/b.m3u8", "http://a.example.com:8080/b.flv", "https://[::1]/b"),
        *("HTTPS://a/b", "https://user:pass@a/b?c=%20#d", "https://直播.example.com/房间"),
    ],
)
def test_stream_urls_of_the_documented_schemes_are_sent(url: str) -> None:
    """A URL with one of the four schemes and a host is sent as it was given."""
    assert ET.fromstring(requests.submit(url).body).findtext("Input/Url") == url


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "a",
            "//a/b",
            "/a",
            "rtmp:",
            "rtmp://",
            "rtmp:///b",
            "rtmp:a",
            "https://:80/",
            "http://@",
        ),
        *("ftp://a/b", "file:///etc/passwd", "srt://a/b", "rtsp://a/b", "javascript:alert(1)"),
        *(" http://a", "http://a ", "http://a/b c", "http://a/\tb", "http://a\n/b", "ht\ntp://a"),
        *("http://a/\u00a0", "http://[::1", "http://[a]/", "http://a\u2100.example.com/"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("name", ["url", "callback"])
def test_other_urls_are_refused(name: str, url: str) -> None:
    """A URL without a host, with another scheme or white space is refused with the schemes."""
    arguments: dict[str, Any] = {"url": LIVE, name: url}
    with pytest.raises(ConfigurationError, match=rf"\A{name}: expected a URL of .*http, https"):
        requests.submit(**arguments)


@pytest.mark.parametrize("url", ["http://a\0/", "http://a/\x1f", "http://a/\ud800"], ids=ascii)
@pytest.mark.parametrize("name", ["url", "callback"])
def test_urls_that_xml_cannot_carry_are_refused(name: str, url: str) -> None:
    """Characters that XML cannot carry are refused in URLs too."""
    arguments: dict[str, Any] = {"url": LIVE, name: url}
    with pytest.raises(ConfigurationError, match=rf"\A{name}: .* cannot be sent in XML"):
        requests.submit(**arguments)


@pytest.mark.parametrize("url", ["rtmp://a/b", "hls://a/b"])
def test_a_callback_must_be_http(url: str) -> None:
    """A callback is sent over HTTP, so the schemes of streams are refused."""
    with pytest.raises(ConfigurationError, match=r"\Acallback: expected a URL of http, https"):
        requests.submit(LIVE, callback=url)


def test_a_long_url_is_not_repeated_in_full() -> None:
    """The message about a megabyte of text is short."""
    with pytest.raises(ConfigurationError) as caught:
        requests.submit("x" * 1_000_000)
    assert len(str(caught.value)) < 250


class Callbacks(IntEnum):
    ALL = 1


@pytest.mark.parametrize(("value", "wire"), [(1, "1"), (2, "2"), (Callbacks.ALL, "1")])
def test_callback_types_are_sent(value: int, wire: str) -> None:
    """The two documented types are sent as numbers."""
    assert sent(callback_type=value).findtext("Conf/CallbackType") == wire


@pytest.mark.parametrize("value", [0, 3, -1, True, False, 1.0, "1", "", b"1", [1], {}], ids=repr)
def test_other_callback_types_are_refused(value: Any) -> None:
    """Other numbers, and values of other types even if they equal 1, are refused."""
    with pytest.raises(ConfigurationError, match=r"\Acallback_type: expected 1 .* or 2 "):
        requests.submit(LIVE, callback_type=value)


# Further nodes


def test_extra_is_merged_into_the_document() -> None:
    """`Mask` as in the vendor's Java sample, with lists, is written beside the arguments."""
    request = requests.submit(
        LIVE,
        biz_type="b81d45f9",
        extra={
            "Conf": {
                "CallbackVersion": "Detail",
                "DetectType": "Porn,Ads",
                "Mask": {
                    "Images": [
                        {"Label": "Ads:QRCode", "Type": "Mosaic"},
                        {"Label": "default", "Type": "Mask", "Url": "http://a/b?c&d"},
                    ],
                    "Audios": ({"Label": "default", "Type": "Silence"},),
                    "CosOutput": {"Transcode": 1, "Ratio": 0.5, "Object": "${JobId}"},
                },
            },
            "Input": {"UserInfo": {"Room": "7"}},
            "Other": None,
        },
    )
    assert request.body.decode() == (
        f"<Request><Input><Url>{LIVE}</Url><UserInfo><Room>7</Room></UserInfo></Input>"
        "<Conf><BizType>b81d45f9</BizType>"
        "<CallbackVersion>Detail</CallbackVersion><DetectType>Porn,Ads</DetectType>"
        "<Mask>"
        "<Images><Label>Ads:QRCode</Label><Type>Mosaic</Type></Images>"
        "<Images><Label>default</Label><Type>Mask</Type><Url>http://a/b?c&amp;d</Url></Images>"
        "<Audios><Label>default</Label><Type>Silence</Type></Audios>"
        "<CosOutput><Transcode>1</Transcode><Ratio>0.5</Ratio><Object>${JobId}</Object></CosOutput>"
        "</Mask></Conf><Type>live_video</Type></Request>"
    )


def test_extra_is_not_changed() -> None:
    """The mapping of the caller is left unchanged."""
    extra = {"Conf": {"Mask": {"Images": [{"Label": "default"}]}}}
    assert sent(biz_type="a", extra=extra).findtext("Conf/BizType") == "a"
    assert extra == {"Conf": {"Mask": {"Images": [{"Label": "default"}]}}}


def test_extra_may_set_a_node_whose_argument_is_left_out() -> None:
    """A node whose argument is left out may be given in `extra`."""
    assert sent(extra={"Conf": {"CallbackType": 1}}).findtext("Conf/CallbackType") == "1"


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"Type": "video"}, "extra.Type"),
        ({"Input": {"Url": "http://b"}}, "extra.Input.Url"),
        ({"Input": "http://b"}, "extra.Input"),
        ({"Conf": {"BizType": "b"}}, "extra.Conf.BizType"),
        ({"Conf": {"BizType": None}}, "extra.Conf.BizType"),
        ({"Conf": [{"Mask": 1}]}, "extra.Conf"),
        ({"Input": {"UserInfo": {"Room": "8"}}}, "extra.Input.UserInfo.Room"),
    ],
)
def test_extra_does_not_replace_an_argument(extra: dict[str, Any], path: str) -> None:
    """Two values for one node are a conflict, and the message has its path."""
    with pytest.raises(ConfigurationError, match=rf"\A{path}: already given"):
        requests.submit(LIVE, biz_type="a", user_info=UserInfo(room="7"), extra=extra)


@pytest.mark.parametrize(
    "tag",
    [
        *("", " ", "a b", "a\n", "1a", "-a", ".a", "a:b", "a/b", "a><b", "a b='c'", "<a>", "a&b"),
        *("\u00e9", "a\0", "!--", "?xml", None, 5, ("a",), b"a"),
    ],
    ids=ascii,
)
def test_names_in_extra_must_be_names_of_elements(tag: Any) -> None:
    """A key cannot inject markup; the message has its path in `extra`."""
    with pytest.raises(ConfigurationError, match=r"(?s)\Aextra\.Conf\..*: not a name"):
        requests.submit(LIVE, extra={"Conf": {tag: "x"}})


@pytest.mark.parametrize("value", [True, b"x", {1}, ..., 1j, [[True]], {"A": b""}], ids=repr)
def test_values_in_extra_must_be_texts_numbers_mappings_or_lists(value: Any) -> None:
    """A value of another type is refused; the message has its path in `extra`."""
    with pytest.raises(ConfigurationError, match=r"\Aextra\.Conf\.Mask(\.A)?: expected text"):
        requests.submit(LIVE, extra={"Conf": {"Mask": value}})


@pytest.mark.parametrize("text", NOT_XML, ids=ascii)
def test_texts_in_extra_are_checked_too(text: str) -> None:
    """Characters that XML cannot carry are refused in `extra` too."""
    with pytest.raises(ConfigurationError, match=r"\Aextra\.Conf\.Mask: .* cannot be sent in XML"):
        requests.submit(LIVE, extra={"Conf": {"Mask": text}})


@pytest.mark.parametrize("value", ["Conf", ["Conf"], 5, b"Conf", {"Conf"}], ids=repr)
def test_extra_must_be_a_mapping(value: Any) -> None:
    """An `extra` of another type is refused by name."""
    with pytest.raises(ConfigurationError, match=r"\Aextra: "):
        requests.submit(LIVE, extra=value)


# The host


@pytest.mark.parametrize(
    ("bucket", "region"),
    [
        (BUCKET, "ap-beijing"),
        (BUCKET, "eu-frankfurt"),
        (BUCKET, "na-siliconvalley"),
        (BUCKET, "ap-shanghai-fsi"),
        (BUCKET, "ap-beijing-1"),
        ("a-12500", "ap-hongkong"),
        ("0-a--b-9-1250000000", "ap-singapore"),
        ("a" * 50 + "-123456789012", "ap-" + "a" * 20),
    ],
)
def test_host_of_a_bucket(bucket: str, region: str) -> None:
    """The host is the bucket, `ci` and the region, as labels that DNS can carry."""
    host = endpoint.host(bucket, region)
    assert host == f"{bucket}.ci.{region}.myqcloud.com"
    assert max(map(len, host.split("."))) <= 63


@pytest.mark.parametrize("bucket", HOSTILE_BUCKETS, ids=ascii)
def test_a_bucket_cannot_change_the_host(bucket: Any) -> None:
    """Every other bucket is refused, so no signature goes to the server of another."""
    with pytest.raises(ConfigurationError, match=r"\Abucket: expected a "):
        endpoint.host(bucket, "ap-beijing")


@pytest.mark.parametrize("region", HOSTILE_REGIONS, ids=ascii)
def test_a_region_cannot_change_the_host(region: Any) -> None:
    """Every other region is refused, so no signature goes to the server of another."""
    with pytest.raises(ConfigurationError, match=r"\Aregion: expected a "):
        endpoint.host(BUCKET, region)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, f"https://{BUCKET}.ci.ap-beijing.myqcloud.com"),
        ("https://ci", "https://ci"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_base_url(given: str | None, expected: str) -> None:
    """Requests go to the bucket's host, or to an endpoint without the slash at its end."""
    assert endpoint.base_url(BUCKET, "ap-beijing", given) == expected


def test_an_endpoint_without_tls_elsewhere_must_be_allowed() -> None:
    """An http endpoint on another machine is refused unless it is allowed."""
    with pytest.raises(ConfigurationError, match=r"\Aendpoint: without TLS"):
        endpoint.base_url(BUCKET, "ap-beijing", "http://proxy")
    url = endpoint.base_url(BUCKET, "ap-beijing", "http://proxy", allow_http=True)
    assert url == "http://proxy"


@pytest.mark.parametrize(
    "given", ["", "ci", "ftp://ci", "https://ci/path", "https://user:hunter2@ci", "https://ci:0"]
)
def test_every_other_endpoint_is_refused(given: str) -> None:
    """An endpoint is a scheme, a host and optionally a port; the message does not quote it."""
    with pytest.raises(ConfigurationError, match=r"\Aendpoint: expected http or https") as caught:
        endpoint.base_url(BUCKET, "ap-beijing", given)
    assert "hunter2" not in str(caught.value)
