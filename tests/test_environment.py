"""What a client reads from the environment: all that ``emulate`` prints, each by itself."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import serving

from ci_live_audit import ConfigurationError, LiveAuditClient
from ci_live_audit.testing import Emulator

BUCKET, REGION, ENDPOINT = "examplebucket-1250000000", "ap-beijing", "https://gateway.example"
VARIABLES = {
    "bucket": ("CI_LIVE_AUDIT_BUCKET", "otherbucket-1250000001"),
    "region": ("TENCENTCLOUD_REGION", "eu-frankfurt"),
    "endpoint": ("CI_LIVE_AUDIT_ENDPOINT", "https://other.example"),
}


@pytest.mark.waits
async def test_a_program_runs_against_what_emulate_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without any argument calls the emulator, with its bucket, region and keys."""
    with serving() as service:
        for name, value in service.environ.items():
            monkeypatch.setenv(name, value)
        job_id = service.emulator.add_job()
        async with LiveAuditClient() as client:
            assert (await client.query(job_id)).job_id == job_id
        assert len(service.emulator.arrivals) == 1


@pytest.mark.parametrize("given", VARIABLES)
def test_a_variable_beside_its_argument_is_not_looked_at(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is read by itself, also if the variable of one that is given is malformed."""
    arguments: dict[str, Any] = {"bucket": BUCKET, "region": REGION, "endpoint": ENDPOINT}
    for name, (variable, value) in VARIABLES.items():
        monkeypatch.setenv(variable, "malformed!" if name == given else value)
    client = LiveAuditClient(**{given: arguments[given]})
    expected = {name: value for name, (_, value) in VARIABLES.items()} | {given: arguments[given]}
    assert (client._bucket, client._region) == (expected["bucket"], expected["region"])
    assert f"https://{client._caller.host}" == expected["endpoint"]
    with pytest.raises(ConfigurationError, match=rf"\A{given}: "):
        LiveAuditClient()


@pytest.mark.parametrize("name", ["bucket", "region"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_missing_is_named(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the argument, an empty variable is as good as none."""
    arguments: dict[str, Any] = {"bucket": BUCKET, "region": REGION, name: None}
    if value is not None:
        monkeypatch.setenv(VARIABLES[name][0], value)
    with pytest.raises(ConfigurationError, match=rf"\A{name}: .* set {VARIABLES[name][0]}\Z"):
        LiveAuditClient(**arguments)


def test_an_empty_endpoint_of_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket's own host is used."""
    monkeypatch.setenv("CI_LIVE_AUDIT_ENDPOINT", "")
    client = LiveAuditClient(BUCKET, REGION)
    assert client._caller.host == f"{BUCKET}.ci.{REGION}.myqcloud.com"


async def test_a_client_of_the_emulator_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test in which the variables are set runs as one in which they are not."""
    for variable, _ in VARIABLES.values():
        monkeypatch.setenv(variable, "malformed!")
    emulator = Emulator()
    async with emulator.client() as client:
        await client.query(emulator.add_job())
