"""The results: frozen, plain, open to words of the service that nobody knows yet."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from ci_live_audit import decode, models
from ci_live_audit.models import (
    AudioSection,
    AuditJob,
    CancelledJob,
    HitFlag,
    JobState,
    ReadOnly,
    Result,
    Scene,
    Snapshot,
    SubmittedJob,
    UserInfo,
    Verdict,
    wire_name,
)

SAMPLE = (Path(__file__).parent / "samples" / "complete.xml").read_bytes()
JOB = decode.job(SAMPLE, received_at=datetime(2022, 4, 8, 12, tzinfo=UTC))
CLASSES: list[type[Any]] = [
    value
    for value in vars(models).values()
    if isinstance(value, type) and issubclass(value, Result) and attrs.has(value)
]


def example(cls: type[Any]) -> Any:
    """A value of a class, with no more in it than must be."""
    must = {"job_id": "j", "state": JobState.AUDITING}
    return cls(**{name: must[name] for name in must.keys() & attrs.fields_dict(cls).keys()})


# Mappings


def test_read_only_behaves_as_the_dict_it_was_made_of() -> None:
    """It equals a dict, reads like one, and prints like one."""
    items = {"a": 1, "b": 2}
    mapping = ReadOnly(items)
    assert mapping == items
    assert items == mapping
    assert mapping != {"a": 1}
    assert (mapping["a"], mapping.get("c"), "b" in mapping, len(mapping)) == (1, None, True, 2)
    assert list(mapping) == ["a", "b"]
    assert repr(mapping) == "{'a': 1, 'b': 2}"


@pytest.mark.parametrize("items", [None, {}, ReadOnly()])
def test_read_only_may_be_empty(items: dict[str, int] | None) -> None:
    """Nothing makes an empty mapping."""
    assert ReadOnly(items) == {}


def test_read_only_does_not_change() -> None:
    """Neither through itself nor through the dict that it was made of."""
    items = {"a": 1}
    mapping: Any = ReadOnly(items)
    items["b"] = 2
    with pytest.raises(TypeError):
        mapping["b"] = 2
    with pytest.raises(TypeError):
        del mapping["a"]
    with pytest.raises(AttributeError):
        mapping.b = 2
    assert mapping == {"a": 1}


def test_read_only_hashes_by_its_items() -> None:
    """Equal mappings hash equal, in whatever order they were filled."""
    assert hash(ReadOnly({"a": 1, "b": 2})) == hash(ReadOnly({"b": 2, "a": 1}))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_read_only_pickles(protocol: int) -> None:
    """It survives every protocol of today."""
    mapping = ReadOnly({"a": ReadOnly({"b": (1, None)})})
    again = pickle.loads(pickle.dumps(mapping, protocol))
    assert (again, type(again)) == (mapping, ReadOnly)


# Results


@pytest.mark.parametrize("cls", CLASSES)
def test_result_is_frozen_and_slotted(cls: type[Any]) -> None:
    """No attribute can be changed, and none added."""
    result = example(cls)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        result.extra = {}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        result.new = 1
    assert not hasattr(result, "__dict__")


@pytest.mark.parametrize("cls", CLASSES)
def test_result_takes_names_only(cls: type[Any]) -> None:
    """The order of the attributes is no promise, so nobody may build on it."""
    with pytest.raises(TypeError):
        cls("j", JobState.AUDITING)


@pytest.mark.parametrize("cls", CLASSES)
def test_result_has_its_extra(cls: type[Any]) -> None:
    """Every class has a place for what it does not know, and it is empty by default."""
    assert example(cls).extra == ReadOnly()


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(decode.job(SAMPLE, received_at=JOB.received_at), id="decoded again"),
        pytest.param(pickle.loads(pickle.dumps(JOB)), id="pickled"),
        pytest.param(copy.copy(JOB), id="copied"),
        pytest.param(copy.deepcopy(JOB), id="copied deeply"),
    ],
)
def test_equal_results(copied: AuditJob) -> None:
    """A job is its values: equal ones compare and hash equal, however they were made."""
    assert copied == JOB
    assert hash(copied) == hash(JOB)
    assert {copied, JOB} == {JOB}


@pytest.mark.parametrize(
    "change",
    [{"label": "Normal"}, {"snapshots": ()}, {"scenes": ReadOnly()}, {"state": JobState.SUCCESS}],
)
def test_results_that_differ(change: dict[str, Any]) -> None:
    """One other value makes another job."""
    assert attrs.evolve(JOB, **change) != JOB


def test_results_of_different_classes_differ() -> None:
    """A submission's answer is not a cancellation's, though they look the same."""
    submitted: Result = SubmittedJob(job_id="j")
    cancelled: Result = CancelledJob(job_id="j")
    assert submitted.to_dict() == cancelled.to_dict()
    assert submitted != cancelled


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        (JobState.SUBMITTED, False),
        (JobState.SNAPSHOTING, False),
        (JobState.AUDITING, False),
        (JobState.SUCCESS, True),
        (JobState.FAILED, True),
        (JobState.CANCELLED, True),
        (JobState("Paused"), False),
    ],
)
def test_ended(state: JobState, *, ended: bool) -> None:
    """Three states are the last; an unknown one is not taken for one of them."""
    assert AuditJob(job_id="j", state=state).ended is ended


@pytest.mark.parametrize(
    "found",
    [
        AuditJob(job_id="j", state=JobState.AUDITING, scenes={"Porn": Scene(), "New": Scene()}),
        Snapshot(scenes={"Porn": Scene()}),
        AudioSection(scenes={"Porn": Scene()}),
    ],
)
def test_scene_shorthands(found: AuditJob | Snapshot | AudioSection) -> None:
    """What was moderated has its scene, what was not has none."""
    assert found.porn == Scene()
    assert found.ads is None


def test_ads_shorthand() -> None:
    """The advertising scene has its shorthand too."""
    assert Snapshot(scenes={"Ads": Scene(score=1)}).ads == Scene(score=1)


# Open enums


@pytest.mark.parametrize("word", ["Success", "success", "SUCCESS"])
def test_state_in_any_case(word: str) -> None:
    """A word of the documents is that state, however it is capitalized."""
    assert JobState(word) is JobState.SUCCESS


@pytest.mark.parametrize("word", ["Cancel", "Canceled", "Cancelled", "cancel", "CANCELED"])
def test_cancelled_in_any_spelling(word: str) -> None:
    """No document spells the cancelled state, so every spelling is it."""
    assert JobState(word) is JobState.CANCELLED


@pytest.mark.parametrize(
    ("cls", "value"),
    [(JobState, "Paused"), (Verdict, 7), (HitFlag, -1), (Verdict, 2**63)],
)
@pytest.mark.parametrize(
    "remade",
    [
        lambda member: member,
        lambda member: type(member)(member.value),
        lambda member: pickle.loads(pickle.dumps(member)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=["itself", "again", "pickled", "copied", "copied deeply"],
)
def test_unlisted_member(cls: Any, value: object, remade: Any) -> None:
    """An unknown value is a member that reads, compares and hashes as the value does."""
    member = remade(cls(value))
    assert isinstance(member, cls)
    assert (member, member.value, member.name, hash(member)) == (
        value,
        value,
        "UNLISTED",
        hash(value),
    )
    assert f"{member}" == str(member) == str(value)
    assert member not in list(cls)


def test_unlisted_members_differ_by_value() -> None:
    """Two unknown values are not the same only because both are unknown."""
    assert JobState("Paused") != JobState("Queued")
    assert Verdict(7) != Verdict(8)


@pytest.mark.parametrize(
    ("cls", "value"), [(JobState, 1), (JobState, None), (Verdict, "1"), (HitFlag, 1.5)]
)
def test_not_a_member(cls: Any, value: object) -> None:
    """A value of another type is a mistake, not an unknown word."""
    with pytest.raises(ValueError, match="is not a valid"):
        cls(value)


# Plain values


def test_to_dict() -> None:
    """Attribute names, values of enums, ISO times, lists, and nothing left out."""
    job = AuditJob(
        job_id="j",
        state=JobState("Paused"),
        result=Verdict.SUSPECTED,
        creation_time=datetime(2022, 4, 8, 12, tzinfo=UTC),
        scenes=ReadOnly({"Porn": Scene(hit_flag=HitFlag.HIT, keywords=("a", "b"))}),
        user_info=UserInfo(ip="192.0.2.7"),
        extra=ReadOnly({"New": (None, ReadOnly({"A": 1.5}))}),
    )
    plain = job.to_dict()
    assert list(plain) == list(attrs.fields_dict(AuditJob))
    sent = {name: value for name, value in plain.items() if value not in (None, [], {})}
    porn = sent["scenes"]["Porn"]
    assert (porn["hit_flag"], type(porn["hit_flag"]), porn["keywords"]) == (1, int, ["a", "b"])
    assert sent == {
        "job_id": "j",
        "state": "Paused",
        "result": 2,
        "creation_time": "2022-04-08T12:00:00+00:00",
        "scenes": {"Porn": porn},
        "user_info": {**dict.fromkeys(attrs.fields_dict(UserInfo)), "ip": "192.0.2.7", "extra": {}},
        "extra": {"New": [None, {"A": 1.5}]},
    }
    assert (type(sent["state"]), type(sent["result"])) == (str, int)


def test_to_dict_is_ready_for_json() -> None:
    """A job with everything in it becomes JSON, and comes back as the same plain values."""
    assert json.loads(json.dumps(JOB.to_dict(), allow_nan=False)) == JOB.to_dict()


@pytest.mark.parametrize(
    ("attribute", "name"),
    [("url", "Url"), ("hit_flag", "HitFlag"), ("receive_token_id", "ReceiveTokenId")],
)
def test_wire_name(attribute: str, name: str) -> None:
    """An attribute's name on the wire follows a rule."""
    assert wire_name(attribute) == name


@pytest.mark.parametrize("kind", [Verdict, HitFlag])
def test_severity_orders_judgements(kind: type[Verdict | HitFlag]) -> None:
    """1 is worse than 2, and both are worse than 0; a number nobody knows counts as 0."""
    assert [kind(number).severity for number in (0, 2, 1, 9)] == [0, 1, 2, 0]
