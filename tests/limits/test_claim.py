"""The script that grants slots, run by a real server under a clock that the tests set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
import redis as redis_py
from daemons import RedisServer
from hypothesis import given
from hypothesis import strategies as st
from proofs import times as how_often

from ci_live_audit.limits.claim import CLAIM, LEAVE, keys
from ci_live_audit.limits.claimant import Reply
from ci_live_audit.limits.lanes import BULK, CALLS, NOBODY
from ci_live_audit.limits.pace import Pace

BEGIN = 1_800_000_000.0
SLOT = 0.05
TEXT = CLAIM.text.replace(
    "redis.call('TIME')",
    "{redis.call('HGET', KEYS[6], 's'), redis.call('HGET', KEYS[6], 'us')}",
)
names = itertools.count()


class Quota:
    """A quota of 20 requests a second, its processes by name, and when slots were granted."""

    def __init__(self, client: Any, rate: float = 20.0) -> None:
        self.client = client
        self.rate = rate
        self.granted: list[float] = []
        self.now = BEGIN
        self.numbers = itertools.count(1)
        name = f"quota {next(names)}"
        self.keys = [*keys(name), f"ci_live_audit:{{{name}}}:clock"]

    def run(self, text: str, *arguments: Any) -> list[int]:
        """Run a script at the time of this clock."""
        self.now += 1e-6  # no two scripts run at once
        seconds, rest = divmod(round(self.now * 1e6), 1_000_000)
        self.client.hset(self.keys[5], mapping={"s": seconds, "us": rest})
        number = next(self.numbers)
        first, *numbers = self.client.eval(text, 6, *self.keys, number, *arguments)
        assert first == number
        return list(numbers)

    @property
    def waiters(self) -> list[str]:
        """Who waits, in order, with their lanes."""
        return [name.decode() for name in self.client.zrange(self.keys[2], 0, -1)]

    def ask(
        self,
        who: str = "a",
        lane: int = CALLS,
        *,
        want: int = 1,
        more: bool = False,
        other: bool = False,
        before: float = 0.0,
        rate: float = 0.0,
        hold: float = 0.0,
        refused: float = 0.0,
        census: bool = False,
        settle: float = 0.0,
        slot: str = "",
        told: tuple[Any, ...] = (),
    ) -> Reply:
        """Claim slots for a process."""
        us = [round(seconds * 1e6) for seconds in (before, hold, refused, settle)]
        numbers = self.run(
            TEXT,
            *(who, lane if lane < NOBODY else -1, int(other), int(more), us[0]),
            *(rate or self.rate, us[1], us[2], int(census), us[3]),
            *(slot or f"{who}:{next(self.numbers)}", want, *told),
        )
        reply = Reply.of(numbers)
        self.granted += [self.now] * reply.granted
        return reply

    def take(self, who: str = "a", lane: int = CALLS, **options: Any) -> Reply:
        """Claim a slot until it is granted; time passes."""
        while not (reply := self.ask(who, lane, **options)).granted:
            self.now += reply.wait
        return reply


@pytest.fixture(scope="module")
def client(redis: RedisServer) -> Iterator[Any]:
    with redis_py.Redis.from_url(redis.url) as client:
        yield client


@pytest.fixture
def quota(client: Any) -> Quota:
    return Quota(client)


def most(times: list[float], window: float = 1.0) -> int:
    """Return the most grants in any window, less a microsecond for rounding."""
    return max(sum(first <= moment < first + window - 2e-6 for moment in times) for first in times)


ASKS = st.tuples(
    st.sampled_from("abcd"),
    st.sampled_from([CALLS, BULK]),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.06, 0.3, 1.2]),
)


@given(rate=st.sampled_from([1.0, 2.5, 20.0, 100.0]), asks=st.lists(ASKS, max_size=60))
def test_no_second_has_more_than_the_rate(client: Any, rate: float, asks: list[Any]) -> None:
    """However processes come, wait, hurry and go away, no second of the server has too many."""
    quota = Quota(client, rate)
    for who, lane, more, want, pause in asks:
        reply = quota.ask(who, lane, more=more, want=want)
        quota.now += min(pause, reply.wait) if more else pause
    if quota.granted:
        count = max(1, int(rate))
        assert most(quota.granted, count / rate) <= count


def test_all_of_the_rate_is_used(quota: Quota) -> None:
    """Of 20 a second, 99 % pass, and four that always wait get as much as each other."""
    due = dict.fromkeys("abcd", BEGIN)
    number = dict.fromkeys("abcd", 0)
    while quota.now < BEGIN + 30:
        who = min(due, key=lambda one: due[one])
        quota.now = max(quota.now, due[who])
        reply = quota.ask(who, more=True)
        number[who] += reply.granted
        due[who] = quota.now + max(reply.wait, 1e-4)
    assert sum(number.values()) >= 0.99 * 20 * 30 - 1
    assert max(number.values()) - min(number.values()) <= 1
    assert most(quota.granted) == 20


def test_lateness_is_caught_up_and_idleness_is_not(quota: Quota) -> None:
    """After 40 ms two may pass at once, after a minute one."""
    quota.take()
    quota.now += SLOT + 0.04
    assert quota.ask().granted == 1
    assert quota.ask().wait == pytest.approx(0.01, abs=1e-4)
    quota.now += 60
    assert quota.ask().granted == 1
    assert quota.ask().wait == pytest.approx(SLOT, abs=1e-4)


def test_several_slots_that_are_open_are_granted_at_once(quota: Quota) -> None:
    """At a high rate, one claim catches up with several."""
    quota.rate = 1000
    quota.take()
    quota.now += 0.005
    assert quota.ask(want=10).granted == 5


def test_a_call_goes_before_bulk_of_all_processes(quota: Quota) -> None:
    """Who has waited for long in the second lane waits for whoever comes in the first."""
    quota.take("a", more=True)
    quota.ask("b", BULK)
    wait = quota.ask("c").wait
    quota.now += wait
    assert quota.ask("b", BULK).granted == 0
    assert quota.ask("c").granted == 1


def test_a_process_waits_in_both_lanes(quota: Quota) -> None:
    """Its place in the second lane stays while it asks for the first, and goes if nobody waits."""
    quota.take("a", more=True)
    quota.ask("a", BULK, other=True)
    quota.ask("b", BULK)
    quota.take("a", CALLS, other=True)
    assert quota.waiters == ["a:1", "b:1"]
    quota.take("a", CALLS)
    assert quota.waiters == ["b:1"]
    quota.ask("b", NOBODY)
    assert quota.waiters == []


def test_who_is_late_is_passed_over_and_then_removed(quota: Quota) -> None:
    """A dead process costs the others 25 ms once."""
    quota.take()
    wait = quota.ask("dead").wait
    quota.ask("b")
    quota.now += wait + 0.024
    assert quota.ask("b").granted == 0
    quota.now += 0.002
    assert quota.ask("b").granted == 1
    assert quota.waiters == ["dead:0"]
    quota.now += 6
    quota.ask("b")
    assert quota.waiters == []


def test_after_an_empty_restart_nothing_is_caught_up(quota: Quota) -> None:
    """If Redis forgets everything, the seconds around that have no more than others."""
    for _ in range(25):
        quota.take()
    quota.client.delete(*quota.keys)
    for _ in range(25):
        quota.take()
    assert most(quota.granted) <= 20


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_the_server_is_set(quota: Quota, hours: int) -> None:
    """One that goes back costs a second, one that goes on nothing; all stay in their order."""
    for _ in range(25):
        quota.take("a", more=True)
    quota.ask("b", more=True)
    before = quota.now
    quota.now += 3600 * hours
    quota.take("a", more=True)
    waited = quota.now - before - 3600 * hours
    assert waited == pytest.approx(1.008 if hours < 0 else 0.05, abs=0.06)
    quota.take("b", more=True)
    assert quota.now - before - 3600 * hours - waited <= 0.11


def test_a_hold_is_for_everybody_and_a_minute_at_most(quota: Quota) -> None:
    """What one process holds, no other gets."""
    quota.take()
    assert quota.ask(lane=NOBODY, hold=5).held == pytest.approx(5)
    reply = quota.ask("b")
    assert reply.granted == 0
    assert reply.held == pytest.approx(5)
    assert reply.wait == pytest.approx(5, abs=SLOT)
    assert quota.ask("b", hold=1000).held == pytest.approx(60)


def test_a_refusal_pauses_until_there_is_room(quota: Quota) -> None:
    """Everybody waits until two grants are a second old, or for a second if there are few."""
    for _ in range(20):
        quota.take()
    second = quota.granted[-20:][1]
    assert quota.ask("b", refused=1).held == pytest.approx(second + 1 - quota.now, abs=1e-4)
    quota.now += 100
    assert quota.ask("b", refused=1).held == pytest.approx(1)


def test_a_pause_is_one_refusal(quota: Quota) -> None:
    """What else was in flight lowers the pace no further."""
    for _ in range(20):
        quota.take()
    pace = quota.ask("a", refused=1).pace
    assert pace < 18
    assert quota.ask("b", refused=1).pace == pytest.approx(pace)


EVENTS = st.lists(st.sampled_from(["grant", "refusal", "pause"]), max_size=15)


@given(EVENTS)
def test_the_pace_is_that_of_one_process(client: Any, events: list[str]) -> None:
    """Whatever is granted and refused, the script slows down as `Pace` does."""
    quota, pace = Quota(client), Pace(20.0)
    for event in ["grant"] * 3 + events:
        if event == "pause":
            quota.now += 3
        if event == "refusal":
            lower = sum(moment > quota.now - 1 for moment in quota.granted[-20:]) > 2
            lower = lower and not quota.ask(lane=NOBODY).held
            quota.ask(lane=NOBODY, refused=1)
            if lower:
                pace.lower(quota.now)
        else:
            quota.take()
            pace.count()
        assert quota.ask(lane=NOBODY).pace == pytest.approx(pace.at(quota.now), abs=1e-4)


def test_a_lower_pace_spaces_slots(quota: Quota) -> None:
    """At a lower pace, slots open later."""
    for _ in range(20):
        quota.take()
    for _ in range(30):
        quota.now += quota.ask(refused=1).held + 1e-3
        for _ in range(3):
            quota.take()
    pace = quota.ask(lane=NOBODY).pace
    assert pace < 12
    quota.take()
    assert quota.ask().wait == pytest.approx(1 / pace, rel=0.05)


def test_the_lowest_rate_holds_while_its_process_is_there(quota: Quota) -> None:
    """Processes that disagree get the lower one, until its process was not seen for 30 s."""
    quota.ask("a", rate=20, census=True)
    assert quota.ask("b", rate=5, census=True).rate == 5
    assert quota.ask("a", rate=20).rate == 5
    assert quota.ask("c", rate=2).rate == 2
    assert quota.ask("a", rate=20, census=True).rate == 5
    quota.now += 31
    assert quota.ask("a", rate=20, census=True).rate == 20


def test_a_census_counts_and_ranks(quota: Quota) -> None:
    """Each process knows how many there are and which of them it is; who leaves is not counted."""
    for who in "bca":
        quota.ask(who, census=True)
    found = [quota.ask(who, census=True) for who in "abc"]
    assert [(one.processes, one.rank) for one in found] == [(3, 0), (3, 1), (3, 2)]
    quota.ask("b")
    quota.run(LEAVE.text, "b")
    assert "b:0" not in quota.waiters
    assert quota.ask("c", NOBODY).processes == 2


def test_a_claim_from_before_a_stop_is_not_looked_at(quota: Quota) -> None:
    """What a stopped server reads later costs no slot."""
    assert quota.ask(before=quota.now - 0.001).stale
    assert not quota.client.exists(*quota.keys[:5])
    assert not quota.ask(before=quota.now + 0.001).stale


def test_a_slot_that_was_not_used_is_given_back(quota: Quota) -> None:
    """Another gets it at once."""
    quota.take(slot="unused")
    assert quota.ask("b").granted == 0
    assert quota.ask("b", told=("unused:1", -1)).granted == 1
    assert quota.ask("c", told=("nothing", -1)).granted == 0


def test_what_passed_without_redis_counts(quota: Quota) -> None:
    """Slots that are reported later fill the second in which they passed."""
    told = itertools.chain.from_iterable((f"own:{n}", 1000 * n) for n in range(20))
    quota.take()
    quota.now += 1
    assert quota.ask("b", NOBODY, told=tuple(told)).granted == 0
    assert quota.ask("b").wait == pytest.approx(0.989, abs=1e-3)


def test_who_comes_back_holds_all_if_they_were_away_too(quota: Quota) -> None:
    """One process that lost its connection does not hold the others."""
    quota.take()
    quota.now += 0.2
    assert quota.ask("b", NOBODY, settle=0.6).held == 0
    quota.now += 3
    assert quota.ask("b", NOBODY, settle=0.6).held == pytest.approx(0.6)


def test_keys_expire(quota: Quota) -> None:
    """An hour after the last process, nothing is left."""
    quota.take("a", more=True, census=True)
    left = [quota.client.pttl(key) for key in quota.keys[:5]]
    assert all(3_500_000 < ttl <= 3_600_000 for ttl in left)


def test_rates_that_are_no_whole_numbers(quota: Quota) -> None:
    """One request in two seconds comes every two seconds."""
    quota.rate = 0.5
    for _ in range(how_often(50)):
        quota.take()
    gaps = [b - a for a, b in itertools.pairwise(quota.granted)]
    assert max(gaps, default=2.0) == pytest.approx(2.008, abs=0.01)
    assert min(gaps, default=inf) >= 2.0
