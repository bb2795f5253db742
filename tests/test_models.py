"""Results: frozen, plain, and open to unknown words of the service."""

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
    """Return a result with its required attributes only."""
    must = {"job_id": "j", "state": JobState.AUDITING}
    return cls(**{name: must[name] for name in must.keys() & attrs.fields_dict(cls).keys()})


# Mappings


def test_read_only_behaves_like_its_dict() -> None:
    """A mapping equals, reads and prints like the dict that it was made of."""
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
    """A mapping made of nothing is empty."""
    assert ReadOnly(items) == {}


def test_read_only_does_not_change() -> None:
    """A mapping changes neither through itself nor through the dict that it was made of."""
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
    """Equal mappings have equal hashes, whatever their order."""
    assert hash(ReadOnly({"a": 1, "b": 2})) == hash(ReadOnly({"b": 2, "a": 1}))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_read_only_pickles(protocol: int) -> None:
    """A mapping survives every protocol of pickle."""
    mapping = ReadOnly({"a": ReadOnly({"b": (1, None)})})
    again = pickle.loads(pickle.dumps(mapping, protocol))
    assert (again, type(again)) == (mapping, ReadOnly)


# Results


@pytest.mark.parametrize("cls", CLASSES)
def test_a_result_is_frozen_and_slotted(cls: type[Any]) -> None:
    """No attribute of a result can be changed or added."""
    result = example(cls)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        result.extra = {}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        result.new = 1
    assert not hasattr(result, "__dict__")


@pytest.mark.parametrize("cls", CLASSES)
def test_a_result_takes_keywords_only(cls: type[Any]) -> None:
    """A result takes keyword arguments only, as the order of its attributes may change."""
    with pytest.raises(TypeError):
        cls("j", JobState.AUDITING)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_result_has_an_extra(cls: type[Any]) -> None:
    """Every result class has an `extra`, empty by default."""
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
    """Jobs with equal values compare and hash equal, however they were made."""
    assert copied == JOB
    assert hash(copied) == hash(JOB)
    assert {copied, JOB} == {JOB}


@pytest.mark.parametrize(
    "change",
    [{"label": "Normal"}, {"snapshots": ()}, {"scenes": ReadOnly()}, {"state": JobState.SUCCESS}],
)
def test_results_that_differ(change: dict[str, Any]) -> None:
    """Jobs that differ in one value are not equal."""
    assert attrs.evolve(JOB, **change) != JOB


def test_results_of_different_classes_differ() -> None:
    """A submission does not equal a cancellation with the same values."""
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
def test_final_states(state: JobState, *, ended: bool) -> None:
    """Three states are final; an unknown one is not."""
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
    """The shorthand of a scene is the scene, or None where there is none."""
    assert found.porn == Scene()
    assert found.ads is None


def test_ads_shorthand() -> None:
    """The advertising scene has a shorthand too."""
    assert Snapshot(scenes={"Ads": Scene(score=1)}).ads == Scene(score=1)


# Open enums


@pytest.mark.parametrize("word", ["Success", "success", "SUCCESS"])
def test_state_in_any_case(word: str) -> None:
    """A documented word is its state in any capitalization."""
    assert JobState(word) is JobState.SUCCESS


@pytest.mark.parametrize("word", ["Cancel", "Canceled", "Cancelled", "cancel", "CANCELED"])
def test_cancelled_in_any_spelling(word: str) -> None:
    """Every spelling of the cancelled state is read, as no document has it."""
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
def test_an_unlisted_member_is_its_value(cls: Any, value: object, remade: Any) -> None:
    """An unknown value is a member that reads, compares and hashes like the value."""
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
    """Two different unknown values are not equal."""
    assert JobState("Paused") != JobState("Queued")
    assert Verdict(7) != Verdict(8)


@pytest.mark.parametrize(
    ("cls", "value"), [(JobState, 1), (JobState, None), (Verdict, "1"), (HitFlag, 1.5)]
)
def test_a_value_of_another_type_is_not_a_member(cls: Any, value: object) -> None:
    """A value of another type is an error, not an unknown word."""
    with pytest.raises(ValueError, match="is not a valid"):
        cls(value)


# Plain values


def test_to_dict() -> None:
    """The plain values have all attributes, enums as values, times as ISO texts, and lists."""
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


def test_to_dict_keeps_texts_as_sent() -> None:
    """Nothing is escaped in plain values, and everything in the JSON that Python makes of them."""
    text = "\x1b[2J\x9b31m\u202e\n\ud800"
    job = AuditJob(
        job_id=text, state=JobState(text), message=text, extra=ReadOnly({text: (text, None)})
    )
    plain = job.to_dict()
    assert [plain[name] for name in ("job_id", "state", "message")] == [text] * 3
    assert plain["extra"] == {text: [text, None]}
    assert json.dumps(plain).isprintable()


def test_to_dict_is_ready_for_json() -> None:
    """A complete job becomes JSON and comes back as the same plain values."""
    assert json.loads(json.dumps(JOB.to_dict(), allow_nan=False)) == JOB.to_dict()


@pytest.mark.parametrize(
    ("attribute", "name"),
    [("url", "Url"), ("hit_flag", "HitFlag"), ("receive_token_id", "ReceiveTokenId")],
)
def test_wire_name(attribute: str, name: str) -> None:
    """The tag of an attribute is its name in CamelCase."""
    assert wire_name(attribute) == name


@pytest.mark.parametrize("kind", [Verdict, HitFlag])
def test_severity_orders_judgements(kind: type[Verdict | HitFlag]) -> None:
    """1 is worse than 2, which is worse than 0; an unknown number counts as 0."""
    assert [kind(number).severity for number in (0, 2, 1, 9)] == [0, 1, 2, 0]


# Hits


@pytest.mark.parametrize(
    "holder",
    [Snapshot(), AudioSection(), AuditJob(job_id="j", state=JobState.AUDITING)],
    ids=lambda holder: type(holder).__name__,
)
def test_hits_are_the_worst_first(holder: Snapshot | AudioSection | AuditJob) -> None:
    """A hit comes before a suspicion, a higher score before a lower one, equals as they came."""
    scenes = {
        "Suspected": Scene(hit_flag=HitFlag.SUSPECTED, score=100),
        "Missed": Scene(hit_flag=HitFlag.MISS, score=99),
        "Unscored": Scene(hit_flag=HitFlag.HIT),
        "Low": Scene(hit_flag=HitFlag.HIT, score=0),
        "High": Scene(hit_flag=HitFlag.HIT, score=61),
        "Alike": Scene(hit_flag=HitFlag.HIT, score=61),
        "Unknown": Scene(hit_flag=HitFlag(7), score=98),
        "Unflagged": Scene(score=97),
    }
    assert holder.hits == {}
    hits = attrs.evolve(holder, scenes=ReadOnly(scenes)).hits
    assert list(hits) == ["High", "Alike", "Low", "Unscored", "Suspected"]
    assert all(hits[name] is scenes[name] for name in hits)


# Times


@pytest.mark.parametrize(
    ("milliseconds", "time"),
    [
        (1_649_387_157_123, datetime(2022, 4, 8, 3, 5, 57, 123_000, tzinfo=UTC)),
        (10**11, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
        (10**13 - 1, datetime(2286, 11, 20, 17, 46, 39, 999_000, tzinfo=UTC)),
        *[(odd, None) for odd in (None, 0, 41, 5000, -1, -(10**12), 10**11 - 1, 10**13)],
        *[(unit * 1_649_387_157, None) for unit in (1, 10**6, 10**9)],
        (10**400, None),
    ],
)
def test_when_an_item_was(milliseconds: int | None, time: datetime | None) -> None:
    """Milliseconds since 1970 are an aware time; offsets, other units and absurd numbers none."""
    taken_at = Snapshot(snapshot_time=milliseconds).taken_at
    assert taken_at == AudioSection(offset_time=milliseconds).began_at == time
    assert taken_at is None or taken_at.tzinfo is UTC
