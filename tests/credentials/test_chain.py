"""Where credentials are found, in which order, and the errors of unusable ones."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest
from keys import ID, KEY, PAIR, TOKEN, TRIPLE, printed, with_locals

from ci_live_audit.credentials import chain as module
from ci_live_audit.credentials.chain import cvm_role, default_chain
from ci_live_audit.credentials.values import Credentials
from ci_live_audit.errors import CredentialsError


class Metadata(ThreadingHTTPServer):
    """The metadata service of a CVM instance, on a real socket."""

    ROLES = "/latest/meta-data/cam/security-credentials/"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.responses: dict[str, tuple[int, bytes]] = {}
        self.requested: list[str] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def role(self, name: str = "auditor", **changes: Any) -> None:
        """Bind a role, with the documented response except for changes; None omits a field."""
        response = {
            "TmpSecretId": ID,
            "TmpSecretKey": KEY,
            "Token": TOKEN,
            "ExpiredTime": 1_700_000_000,
            "Expiration": "2023-11-14T22:13:20Z",
            "Code": "Success",
        } | changes
        self.respond(name + "\n", at="")
        present = {key: value for key, value in response.items() if value is not None}
        self.respond(json.dumps(present), name)

    def respond(self, body: str | bytes, at: str = "auditor", status: int = 200) -> None:
        """Set the response of a path."""
        self.responses[self.ROLES + at] = status, body if isinstance(body, bytes) else body.encode()


class _Handler(BaseHTTPRequestHandler):
    server: Metadata

    def do_GET(self) -> None:
        self.server.requested.append(self.path.removeprefix(Metadata.ROLES))
        status, body = self.server.responses.get(self.path, (404, b"404 - Not Found"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def instance() -> Iterator[Metadata]:
    with Metadata() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def metadata(instance: Metadata) -> Metadata:
    """Return the metadata service of an instance that has no role yet."""
    instance.responses.clear()
    instance.requested.clear()
    return instance


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Yield a host and port on which nobody listens."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(autouse=True)
def etc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the path that stands in for /etc/tencentcloud/credentials."""
    path = tmp_path / "etc" / "credentials"
    assert module.PROFILES[1] == Path("/etc/tencentcloud/credentials")
    monkeypatch.setattr(module, "PROFILES", (module.PROFILES[0], path))
    return path


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return tmp_path / ".tencentcloud" / "credentials"


@pytest.fixture
def tccli(tmp_path: Path) -> Path:
    return tmp_path / ".tccli" / "default.credential"


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


TENCENT = "TENCENTCLOUD_SECRET_ID", "TENCENTCLOUD_SECRET_KEY"
NAMES: list[tuple[tuple[str, str], list[str]]] = [
    (
        TENCENT,
        ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"],
    ),
    (("TENCENTCLOUD_SECRETID", "TENCENTCLOUD_SECRETKEY"), ["TENCENTCLOUD_SESSIONTOKEN"]),
    (("COS_SECRET_ID", "COS_SECRET_KEY"), ["COS_TOKEN"]),
    (("COS_SECRETID", "COS_SECRETKEY"), ["COS_TOKEN"]),
    (("COS_KEY", "COS_SECRET"), ["COS_TOKEN"]),
    (("SECRETID", "SECRETKEY"), []),
]
PAIRS = [pair for pair, _ in NAMES]


@pytest.mark.parametrize("names", PAIRS, ids="/".join)
def test_environment_without_token(names: tuple[str, str], nowhere: str) -> None:
    """Each pair of names for id and key is read; an empty token is none."""
    environ = dict(zip(names, (ID, KEY), strict=True))
    assert default_chain(environ, metadata=nowhere) == PAIR
    tokens = {name: "" for _, names in NAMES for name in names}
    assert default_chain(environ | tokens, metadata=nowhere) == PAIR


@pytest.mark.parametrize(
    ("names", "token"), [(pair, token) for pair, tokens in NAMES for token in tokens]
)
def test_environment_with_token(names: tuple[str, str], token: str, nowhere: str) -> None:
    """Each name for the token is read with its own id and key."""
    environ = {**dict(zip(names, (ID, KEY), strict=True)), token: TOKEN}
    assert default_chain(environ, metadata=nowhere) == TRIPLE


def test_a_token_of_another_tool_is_ignored(nowhere: str) -> None:
    """One tool's token is not combined with another tool's key."""
    environ = {"COS_SECRET_ID": ID, "COS_SECRET_KEY": KEY, "TENCENTCLOUD_TOKEN": TOKEN}
    assert default_chain(environ, metadata=nowhere) == PAIR


def test_an_unusable_value_names_its_variables(nowhere: str) -> None:
    """A line break in a variable is an error with the variable's name, without its value."""
    environ = {"SECRETID": "AKID", "SECRETKEY": "canary\n"}
    with pytest.raises(CredentialsError, match=r"^SECRETID, SECRETKEY: secret_key: ") as caught:
        default_chain(environ, metadata=nowhere)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("unset", [True, False], ids=["unset", "empty"])
@pytest.mark.parametrize("missing", [0, 1], ids=["id", "key"])
@pytest.mark.parametrize("names", PAIRS, ids="/".join)
def test_half_a_pair_is_an_error(
    names: tuple[str, str], missing: int, unset: bool, nowhere: str
) -> None:
    """The message names the missing variable, and no other place is searched."""
    environ = {"SECRETID": ID, "SECRETKEY": KEY, names[1 - missing]: KEY, names[missing]: ""}
    if unset:
        del environ[names[missing]]
    with pytest.raises(CredentialsError, match=rf"\A{names[missing]} is missing .*") as caught:
        default_chain(environ, metadata=nowhere)
    assert names[1 - missing] in str(caught.value)
    assert "canary" not in printed(caught.value)


@pytest.mark.parametrize("first", range(len(PAIRS)))
def test_order_of_names(first: int, nowhere: str) -> None:
    """Of several complete pairs, the first in the documented order is used."""
    environ = {
        name: f"{name}-{part}"
        for pair in reversed(PAIRS[first:])
        for name, part in zip(pair, ("id", "key"), strict=True)
    }
    secret_id, secret_key = PAIRS[first]
    assert default_chain(environ, metadata=nowhere) == Credentials(
        f"{secret_id}-id", f"{secret_key}-key"
    )


@pytest.mark.parametrize("first", range(5))
def test_order_of_places(
    first: int, profile: Path, etc: Path, tccli: Path, metadata: Metadata
) -> None:
    """The places are searched in the documented order."""
    environ: dict[str, str] = {}
    ini = "[default]\nsecret_id = {}\nsecret_key = key\n"
    places: list[Callable[[], None]] = [
        lambda: environ.update(zip(TENCENT, ("0", "key"), strict=True)),
        lambda: write(profile, ini.format(1)),
        lambda: write(etc, ini.format(2)),
        lambda: write(tccli, json.dumps({"secretId": "3", "secretKey": "key"})),
        lambda: metadata.role(TmpSecretId="4"),
    ]
    for fill in places[first:]:
        fill()
    assert default_chain(environ, metadata=metadata.host).secret_id == str(first)
    assert metadata.requested == ([] if first < 4 else ["", "auditor"])


def test_home_is_that_of_the_environment(tmp_path: Path, nowhere: str) -> None:
    """The home directory is that of the environment that is passed."""
    write(tmp_path / "other/.tencentcloud/credentials", f"[default]\nsecret_id={ID}\nsecret_key=k")
    found = default_chain({"HOME": str(tmp_path / "other")}, metadata=nowhere)
    assert found == Credentials(ID, "k")


def test_nothing_found_names_all_places(
    profile: Path, etc: Path, tccli: Path, nowhere: str
) -> None:
    """If nothing is found, one message names every place, each with its reason."""
    write(etc, "[other]\nsecret_id = canary\n")
    tccli.parent.mkdir()
    tccli.symlink_to(tccli)
    with pytest.raises(CredentialsError, match=r"\Ano credentials found: ") as caught:
        default_chain({}, metadata=nowhere)
    for part in [
        "TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY are not set",
        f"{profile}: there is no such file",
        f"{etc}: it has no section [default]",
        f"{tccli}: it cannot be read (Too many levels of symbolic links)",
        *("no CVM role here (ConnectionRefusedError", "credentials="),
    ]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "canary" not in printed(caught.value)


# Each place stands alone


def test_no_home_is_needed(
    etc: Path, metadata: Metadata, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without HOME, and with a user that has none, all places but the two of the home are read."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # no user of this machine
    assert default_chain(dict(zip(TENCENT, (ID, KEY), strict=True)), metadata=nowhere) == PAIR
    metadata.role()
    assert default_chain({}, metadata=metadata.host).secret_id == ID
    with pytest.raises(CredentialsError) as caught:
        default_chain({}, metadata=nowhere)
    for name in ("~/.tencentcloud/credentials", "~/.tccli/default.credential"):
        assert f"{name}: HOME is not set" in str(caught.value)
    write(etc, f"[default]\nsecret_id={ID}\nsecret_key={KEY}")
    assert default_chain({}, metadata=nowhere) == PAIR


def test_a_home_that_cannot_be_read_is_passed_over(
    tmp_path: Path, metadata: Metadata, nowhere: str
) -> None:
    """The home of another user, as after ``sudo`` or in a container, hides no other place."""
    home = tmp_path / "other"
    for name in (".tencentcloud", ".tccli"):
        (home / name).mkdir(parents=True)
    home.chmod(0)
    superuser = os.geteuid() == 0  # who may read everything
    metadata.role()
    try:
        if superuser:
            os.seteuid(65534)
        assert default_chain({"HOME": str(home)}, metadata=metadata.host).secret_id == ID
        with pytest.raises(CredentialsError) as caught:
            default_chain({"HOME": str(home)}, metadata=nowhere)
    finally:
        if superuser:
            os.seteuid(0)
        home.chmod(0o700)
    for name in (".tencentcloud/credentials", ".tccli/default.credential"):
        assert f"{home / name}: it cannot be read (Permission denied)" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[other]\nsecret_id = a\nsecret_key = b", "[Default]"])
@pytest.mark.parametrize("where", ["profile", "etc"])
def test_a_profile_without_default_is_passed_over(
    where: str, text: str, metadata: Metadata, request: pytest.FixtureRequest
) -> None:
    """A file that has only other profiles hides no place after it."""
    write(request.getfixturevalue(where), text)
    metadata.role()
    assert default_chain({}, metadata=metadata.host).secret_id == ID


# Roles to assume


def test_a_role_of_the_environment_is_refused(profile: Path, nowhere: str) -> None:
    """Wherever the keys come from, they do not sign in place of the role; an empty name is none."""
    write(profile, f"[default]\nsecret_id={ID}\nsecret_key={KEY}")
    role = {"TENCENTCLOUD_ROLE_ARN": "qcs::cam::uin/1:roleName/auditor"}
    for environ in (dict(zip(TENCENT, (ID, KEY), strict=True)), {}):
        with pytest.raises(CredentialsError, match=r"TENCENTCLOUD_ROLE_ARN .*credentials="):
            default_chain(environ | role, metadata=nowhere)
        assert default_chain(environ | {"TENCENTCLOUD_ROLE_ARN": ""}, metadata=nowhere) == PAIR


@pytest.mark.parametrize("kind", [None, "cvm-role", "oauth"])
@pytest.mark.parametrize("name", ["role-arn", "role_arn"])
def test_a_role_of_a_tccli_profile_is_refused(
    name: str, kind: str | None, tccli: Path, metadata: Metadata
) -> None:
    """The message names the file and the setting; an empty role is none."""
    metadata.role()
    content = {"type": kind, "secretId": ID, "secretKey": KEY, name: "qcs::cam::uin/1:roleName/a"}
    write(tccli, json.dumps(content))
    with pytest.raises(CredentialsError, match=rf"{tccli}: {name} names a role .*credentials="):
        default_chain({}, metadata=metadata.host)
    write(tccli, json.dumps(content | {name: ""}))
    assert default_chain({}, metadata=metadata.host).secret_id == ID


@pytest.mark.parametrize("where", ["profile", "etc"])
def test_a_role_of_a_profile_is_refused(
    where: str, nowhere: str, request: pytest.FixtureRequest
) -> None:
    """The message names the file and the setting; an empty role is none."""
    path = request.getfixturevalue(where)
    write(path, f"[default]\nsecret_id={ID}\nsecret_key={KEY}\nrole_arn=qcs::cam::uin/1:role/a")
    with pytest.raises(CredentialsError, match=rf"{path}: role_arn names a role .*credentials="):
        default_chain({}, metadata=nowhere)
    write(path, f"[default]\nsecret_id={ID}\nsecret_key={KEY}\nrole_arn=\n")
    assert default_chain({}, metadata=nowhere) == PAIR


# ~/.tencentcloud/credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[default]\nsecret_id = {ID}\nsecret_key = {KEY}\n", PAIR),
        (f"[default]\nsecret_id={ID}\nsecret_key={KEY}\ntoken={TOKEN}", TRIPLE),
        (f"[default]\r\nsecret_id={ID}\r\nsecret_key={KEY}\r\ntoken=\r\n", PAIR),
        (f"# a\n[other]\nsecret_id = x\n[default]\nsecret_key: {KEY}\nsecret_id: {ID}", PAIR),
        ("[default]\nsecret_id = a%b\nsecret_key = %(c)s;#", Credentials("a%b", "%(c)s;#")),
    ],
    ids=["pair", "token", "windows", "sections", "signs"],
)
@pytest.mark.parametrize("where", ["profile", "etc"])
def test_profile(
    where: str, text: str, expected: Credentials, nowhere: str, request: pytest.FixtureRequest
) -> None:
    """The profiles of the user and of the machine are read the same way."""
    write(request.getfixturevalue(where), text)
    assert default_chain({}, metadata=nowhere) == expected


BAD_PROFILES = [
    pytest.param(f"[default]\nsecret_id = {ID}", "secret_key is missing", id="no key"),
    pytest.param(f"[default]\nsecret_key = {KEY}", "secret_id is missing", id="no id"),
    pytest.param(f"secret_key = {KEY}", "not an INI file", id="no sections"),
    pytest.param(f"[default]\n{KEY}\n", "not an INI file", id="no sign"),
    pytest.param(f"[default\nsecret_key = {KEY}", "not an INI file", id="open bracket"),
    pytest.param(f"[default]\nsecret_id={ID}\nsecret_id={ID}", "not an INI file", id="twice"),
    pytest.param(f"secret_key = {KEY}".encode() + b"\xff", "cannot be read", id="not UTF-8"),
]


@pytest.mark.parametrize(("text", "fault"), BAD_PROFILES)
def test_a_bad_profile_is_an_error(text: str | bytes, fault: str, profile: Path) -> None:
    """The message names the file and its fault, and quotes no line, which may be a key."""
    write(profile, text)
    with pytest.raises(CredentialsError, match=fault) as caught:
        default_chain({})
    assert str(profile) in str(caught.value)
    assert "canary" not in printed(caught.value)


def test_a_file_in_place_of_the_folder_is_no_profile(profile: Path, nowhere: str) -> None:
    """A file `~/.tencentcloud` of another program is ignored."""
    write(profile.parent, "something else")
    with pytest.raises(CredentialsError, match="no credentials found"):
        default_chain({}, metadata=nowhere)


# tccli


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"secretId": ID, "secretKey": KEY}, PAIR),
        ({"secretId": ID, "secretKey": KEY, "token": TOKEN}, TRIPLE),
        ({"secretId": ID, "secretKey": KEY, "token": None, "other": [1]}, PAIR),
        ({"secretId": ID, "secretKey": KEY, "token": "", "type": "static"}, PAIR),
    ],
)
def test_tccli_profile(
    content: Mapping[str, Any], expected: Credentials, tccli: Path, nowhere: str
) -> None:
    """A profile written by `tccli configure` is used."""
    write(tccli, json.dumps(content))
    assert default_chain({}, metadata=nowhere) == expected
    assert default_chain({"TCCLI_PROFILE": ""}, metadata=nowhere) == expected


def test_tccli_profile_of_another_name(tccli: Path, nowhere: str) -> None:
    """`TCCLI_PROFILE` selects the profile."""
    write(tccli, json.dumps({"secretId": "default", "secretKey": "default"}))
    write(tccli.with_stem("work"), json.dumps({"secretId": ID, "secretKey": KEY}))
    assert default_chain({"TCCLI_PROFILE": "work"}, metadata=nowhere) == PAIR


def test_tccli_profile_of_a_role(tccli: Path, metadata: Metadata) -> None:
    """A profile of type `cvm-role` leads to the role of the instance."""
    write(tccli, json.dumps({"type": "cvm-role"}))
    metadata.role()
    assert default_chain({}, metadata=metadata.host).token == TOKEN


def test_tccli_profile_of_a_missing_role(tccli: Path, nowhere: str) -> None:
    """If a profile names a role, the error is about the role."""
    write(tccli, json.dumps({"type": "cvm-role"}))
    with pytest.raises(CredentialsError, match=r"\Athere is no CVM role here"):
        default_chain({}, metadata=nowhere)


def test_tccli_login(tccli: Path, nowhere: str) -> None:
    """The credentials of a login have its expiry, so that they are read again in time."""
    until = int(time.time()) + 7200
    login = {"secretId": ID, "secretKey": KEY, "token": TOKEN, "type": "oauth", "expiresAt": until}
    write(tccli, json.dumps(login))
    assert default_chain({}, metadata=nowhere) == attrs.evolve(TRIPLE, expires_at=until)


@pytest.mark.parametrize(("kind", "login"), [("oauth", "auth"), ("sso", "sso"), (None, "auth")])
def test_an_expired_tccli_login(
    kind: str | None, login: str, tccli: Path, metadata: Metadata
) -> None:
    """The message says how to log in again; the role of the machine does not take its place."""
    metadata.role()
    content = {"secretId": ID, "secretKey": KEY, "token": TOKEN, "expiresAt": int(time.time())}
    write(tccli.with_stem("work"), json.dumps(content | {"type": kind}))
    with pytest.raises(CredentialsError, match="have expired; log in again") as caught:
        default_chain({"TCCLI_PROFILE": "work"}, metadata=metadata.host)
    assert f"tccli {login} login --profile work" in str(caught.value)
    assert str(tccli.with_stem("work")) in str(caught.value)
    assert "canary" not in with_locals(caught.value)


LOGIN = {"secretId": ID, "secretKey": KEY}
BAD_TCCLI = [
    pytest.param(json.dumps(LOGIN | {"expiresAt": "soon"}), "expiresAt", id="no time"),
    pytest.param(json.dumps(LOGIN | {"expiresAt": [1]}), "expiresAt", id="a list of times"),
    pytest.param(json.dumps({"secretId": ID}), "secretKey is missing", id="no key"),
    pytest.param(json.dumps({"secretKey": KEY}), "secretId is missing", id="no id"),
    pytest.param("{}", "secretId is missing", id="nothing"),
    pytest.param("", "not a JSON object", id="empty"),
    pytest.param(f'{{"secretKey": "{KEY}', "not a JSON object", id="truncated"),
    pytest.param(f"secretKey = {KEY}", "not a JSON object", id="INI"),
    pytest.param(f'["{KEY}"]', "not a JSON object", id="list"),
    pytest.param(f'"{KEY}"', "not a JSON object", id="text"),
    pytest.param("null", "not a JSON object", id="null"),
    pytest.param(KEY.encode() + b"\xff", "cannot be read", id="not UTF-8"),
]


@pytest.mark.parametrize(("text", "fault"), BAD_TCCLI)
def test_a_bad_tccli_profile_is_an_error(text: str | bytes, fault: str, tccli: Path) -> None:
    """The message names the file and its fault, and quotes nothing from it."""
    write(tccli, text)
    with pytest.raises(CredentialsError, match=fault) as caught:
        default_chain({})
    assert str(tccli) in str(caught.value)
    assert "canary" not in printed(caught.value)


# The role of a CVM instance


def test_cvm_role(metadata: Metadata) -> None:
    """The name of the role is requested, then its credentials, which have an expiry."""
    metadata.role("auditor")
    assert cvm_role(metadata=metadata.host) == attrs.evolve(TRIPLE, expires_at=1_700_000_000.0)
    assert metadata.requested == ["", "auditor"]


def test_cvm_role_by_name(metadata: Metadata) -> None:
    """If the role is named, only its credentials are requested."""
    metadata.role("auditor")
    assert cvm_role("auditor", metadata=metadata.host).secret_id == ID
    assert metadata.requested == ["auditor"]


def test_cvm_role_of_several(metadata: Metadata) -> None:
    """Of several roles the first is used."""
    metadata.role("auditor")
    metadata.respond("auditor\r\nother\r\n", at="")
    assert cvm_role(metadata=metadata.host).secret_id == ID


def test_cvm_role_needs_no_proxy(
    metadata: Metadata, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata service of the instance is reached without the proxy."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{nowhere}")
    monkeypatch.setenv("http_proxy", f"http://{nowhere}")
    metadata.role()
    assert cvm_role(metadata=metadata.host).secret_id == ID


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"Code": "InvalidRole"}, r"the CVM role auditor has no credentials: InvalidRole"),
        ({"Code": None}, r"gave no credentials \(KeyError\)"),
        ({"TmpSecretId": None}, r"gave no credentials \(KeyError\)"),
        ({"TmpSecretKey": None}, r"gave no credentials \(KeyError\)"),
        ({"Token": None}, r"gave no credentials \(KeyError\)"),
        ({"ExpiredTime": None}, r"gave no credentials \(KeyError\)"),
        ({"ExpiredTime": KEY}, r"gave no credentials \(ValueError\)"),
        ({"ExpiredTime": [KEY]}, r"gave no credentials \(TypeError\)"),
        ({"TmpSecretKey": 5}, r"secret_key: expected a text, got int"),
        ({"TmpSecretKey": "canary\n"}, r"secret_key: expected visible ASCII"),
    ],
)
def test_a_role_without_credentials(
    changes: dict[str, Any], fault: str, metadata: Metadata
) -> None:
    """The message says what is missing or wrong in the response, and quotes no value."""
    metadata.role(**changes)
    with pytest.raises(CredentialsError, match=fault) as caught:
        cvm_role(metadata=metadata.host)
    assert "canary" not in printed(caught.value)


@pytest.mark.parametrize(
    "body",
    ["", "null", "[]", '"canary"', "5", "canary", '{"Code": "Succ', b"\xff\xfe", "x" * 100_000],
    ids=[*("empty", "null", "list", "text", "number", "no JSON", "cut", "no text", "long")],
)
def test_a_garbage_response_is_an_error(body: str | bytes, metadata: Metadata) -> None:
    """Anything but the documented response is an error that quotes none of it."""
    metadata.role()
    metadata.respond(body)
    with pytest.raises(CredentialsError, match="gave no credentials") as caught:
        cvm_role(metadata=metadata.host)
    assert "canary" not in printed(caught.value)


@pytest.mark.parametrize("names", ["", "\n", " \r\n"], ids=repr)
def test_an_empty_list_of_roles_is_an_error(names: str, metadata: Metadata) -> None:
    """Without the name of a role there are no credentials."""
    metadata.respond(names, at="")
    with pytest.raises(CredentialsError, match="gave no credentials"):
        cvm_role(metadata=metadata.host)


@pytest.mark.parametrize("status", [302, 403, 404, 500])
@pytest.mark.parametrize("at", ["", "auditor"], ids=["list", "role"])
def test_a_refusing_metadata_service(at: str, status: int, metadata: Metadata) -> None:
    """A status other than 200 is in the message; a redirect is not followed."""
    metadata.role()
    metadata.respond("canary", at, status)
    with pytest.raises(CredentialsError, match=rf"there is no CVM role here .*status {status}"):
        cvm_role(metadata=metadata.host)


def test_no_metadata_service(nowhere: str) -> None:
    """Outside of the cloud, a refused connection is in the message."""
    with pytest.raises(CredentialsError, match=r"no CVM role here \(ConnectionRefusedError"):
        cvm_role(metadata=nowhere)


def test_a_hanging_metadata_service() -> None:
    """A metadata service that does not respond is given up after a second."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CredentialsError, match=r"no CVM role here \(TimeoutError"):
            cvm_role(metadata=host)


# Local variables, which an error tracker may collect


def test_no_frame_shows_the_environment(monkeypatch: pytest.MonkeyPatch, nowhere: str) -> None:
    """Half a pair in the environment is in no local variable of a traceback."""
    monkeypatch.setenv("TENCENTCLOUD_SECRET_KEY", KEY)
    with pytest.raises(CredentialsError) as caught:
        default_chain(metadata=nowhere)
    assert "canary" not in with_locals(caught.value)


@pytest.mark.parametrize(("text", "fault"), BAD_PROFILES)
def test_no_frame_shows_a_profile(text: str | bytes, fault: str, profile: Path) -> None:
    """The content of a bad profile is in no local variable of a traceback."""
    write(profile, text)
    with pytest.raises(CredentialsError, match=fault) as caught:
        default_chain({})
    assert "canary" not in with_locals(caught.value)


@pytest.mark.parametrize(("text", "fault"), BAD_TCCLI)
def test_no_frame_shows_a_tccli_profile(text: str | bytes, fault: str, tccli: Path) -> None:
    """The content of a bad tccli profile is in no local variable of a traceback."""
    write(tccli, text)
    with pytest.raises(CredentialsError, match=fault) as caught:
        default_chain({})
    assert "canary" not in with_locals(caught.value)


@pytest.mark.parametrize("changes", [{"Token": None}, {"Code": "No"}, {"TmpSecretId": 5}], ids=repr)
def test_no_frame_shows_a_role(changes: dict[str, Any], metadata: Metadata) -> None:
    """The rest of a faulty role response is in no local variable of a traceback."""
    metadata.role(**changes)
    with pytest.raises(CredentialsError) as caught:
        cvm_role(metadata=metadata.host)
    assert "canary" not in with_locals(caught.value)
