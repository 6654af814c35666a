"""Sentences of the programs in the language of a visitor.

They come as English text, also from other hosts and from the decision log. So they are recognized
by their form, one of `PHRASES`, and what has another form remains English. Tests hold that the
sentences about cells, PBXs and bridges are recognized.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

#: Longer texts remain English.
LENGTH_MAX: Final = 2_000

#: Between sentences that stand in one text.
BETWEEN: Final = ("; ", ", ")

#: Places that hold one word.
WORDS: Final = frozenset(
    {"pbx", "cell", "bridge", "name", "trunk", "seconds", "n", "calls", "most", "cps", "rate"}
)

#: A place that holds a sentence with a form of its own. The other places that may hold one.
PHRASE: Final = "phrase"
SENTENCES: Final = frozenset({PHRASE, "reason", "kinds"})

#: How deep sentences are sought in sentences, and between how many.
DEPTH_MAX: Final = 8
SPLITS_MAX: Final = 8

PHRASES: Final = (
    # a PBX
    "{pbx}: {phrase}",
    "{pbx} is {phrase}",
    "{pbx} takes no calls: {phrase}",
    "{pbx} TAKES NO CALLS: {phrase}",
    "{pbx} is not taking calls: {reason}; single calls try it",
    "{pbx} is not taking calls: {reason}; single calls try it, {n} failed",
    "{phrase}; another worker, {worker}, wants it: one PBX has one worker",
    "its worker, {worker}, uses another registry than this dialer.toml: make [registry] "
    "redis_url, and that of [multcall], equal on both hosts",
    "no worker yet; start 'celery -A dialer worker -Q {name}' on its host",
    "no worker of it ever came: start 'celery -A dialer worker -Q {name}' on its host",
    "its worker was stopped",
    "its worker was stopped: 'systemctl status dialer-worker@{name}' on its host",
    "no heartbeat of its worker for {seconds} s",
    "no heartbeat of its worker for {seconds} s; see its log",
    "no heartbeat of its worker for {seconds} s: 'systemctl status dialer-worker@{name}' on its "
    "host",
    "no AMI link for {seconds} s; is its Asterisk up?",
    "no AMI link for {seconds} s",
    "{phrase}: is its Asterisk up, and the AMI user in manager.conf?",
    "no AMI at {place} ({reason})",
    "drained by {by} since {since}; `dialer pbx resume {name}` ends that",
    "paused by {by} since {since}; `dialer cells resume {name}` ends that",
    "the clock of its host is {seconds} s ahead of that of Redis; run chrony or ntpd on both",
    "the clock of its host is {seconds} s behind that of Redis; run chrony or ntpd on both",
    "this host's clock is {seconds} s ahead of the clock of Redis: synchronize it (NTP, chrony) "
    "on both hosts",
    "this host's clock is {seconds} s behind the clock of Redis: synchronize it (NTP, chrony) on "
    "both hosts",
    "it did not claim {n} call that waited for {seconds} s, and says it is ready",
    "it did not claim {n} calls that waited for {seconds} s, and says it is ready",
    "of its {calls} calls of the last minute {kinds} ({share} %)",
    "of its {calls} calls of the last minute {kinds}",
    "{n} of its {calls} calls of the last minute ended in CONGESTION: ask the carrier, and see "
    "that its trunks are registered and have channels free",
    "pbx_slow: limited to {rate} of {cps} calls a second because Asterisk answers in {n} ms "
    "(normal: {most} ms); see the load of its host, or lower cps",
    "trunk_congested: trunk {trunk} limited to {rate} of {cps} calls a second because its "
    "carrier refused {n} of the calls for lack of capacity; ask the carrier, or spread the calls "
    "over other trunks",
    "maxcalls in its asterisk.conf leaves room for {n} of its calls, and its max_calls is "
    "{most}; raise maxcalls, or lower max_calls",
    "no message announced {n} of its {calls} calls of the last minute in time; its worker found "
    "them itself, each a second late: was the broker down, is [broker] url the same on its host "
    "and on the bridge's, and does no other program take from the queue {name}?",
    "{pbx} has not claimed {n} call of {cell}, queued to it for up to {seconds} s; see the log "
    "of its worker",
    "{pbx} has not claimed {n} calls of {cell}, queued to it for up to {seconds} s; see the log "
    "of its worker",
    "{pbx}: Asterisk has not answered the Originate of {n} call of {cell} for up to {seconds} s; "
    "does it hang?",
    "{pbx}: Asterisk has not answered the Originate of {n} calls of {cell} for up to {seconds} "
    "s; does it hang?",
    "{n} got no word from Asterisk",
    "{n} were answered and not handed over to their target",
    "{n} had expired by the clock of its worker",
    # what a worker says of itself
    "the worker of {pbx} gets no messages: {reason}",
    "the worker of {pbx} does not consume its queue; its consumer was cancelled: run 'celery -A "
    "dialer control add_consumer {name}', or restart the worker",
    "the worker of {pbx} is not connected to the broker: see that the server of [broker] url "
    "runs, that this host reaches it, and that user and password are right",
    "the worker of {pbx} does not consume its queue yet: it starts, or this host does not reach "
    "the server of [broker] url",
    "the worker has not connected to the broker yet: it starts",
    "the worker of {pbx} could not renew its lease for {seconds} s, because the registry's Redis "
    "does not answer it: see that this host reaches it",
    "the Redis of cell {cell} refuses the worker of {pbx} ({reason}): `dialer doctor` on its "
    "host says what is missing",
    "{pbx} has as many calls as maxcalls of asterisk.conf allows, {n}: raise it",
    "the load of {pbx} is {n}, and Asterisk cuts off answered calls from maxload = {most} in "
    "asterisk.conf: lower max_calls of {name}, or raise maxload",
    "{pbx} lacks the dialplan include, or has an old one; queue and amd of cell {cell} need it: "
    "put the present deploy/asterisk/dialer.conf into extensions.conf",
    "{pbx} cannot detect answering machines, but cell {cell} has amd: put "
    "deploy/asterisk/amd.conf into /etc/asterisk and load app_amd.so",
    "{pbx} has no queue {name}: add it to queues.conf and load it, or correct queue of cell {cell}",
    "the worker of {pbx} does not tell which operators are free for {cell}: restart it, with the "
    "same mode in its dialer.toml",
    "nobody is free in queue {name} of {pbx}: {phrase}",
    "all free operators of queue {name} of {pbx} ({n}) have calls on their way",
    "calls are queued on {pbxs} for all of them",
    "nobody is free, as Multcall tells it: {phrase}",
    "all free operators ({n}), as Multcall tells it, have calls on their way",
    "{cell}: {n} of Multcall's operators cannot be read: {reason}",
    "what the operators of queue {name} of {pbx} do is not known: no count of Asterisk confirmed "
    "it for {seconds} s; see that the AMI user has read = agent, and that Asterisk answers",
    *("{n} rings", "{n} ring", "{n} talks", "{n} talk", "{n} wraps up", "{n} wrap up"),
    *("{n} is paused", "{n} are paused", "{n} is gone", "{n} are gone"),
    *("{n} is not known", "{n} are not known", "none is logged in"),
    "queue {name} of {pbx} has no available member: have an operator of it log in or end a pause",
    "{pbx} has no context {name}: add it to the dialplan, or correct context of cell {cell}",
    "{pbx} did not hand over the last answered calls of cell {cell}: {reason}",
    # a cell and its bridges
    "{cell}: no bridge serves it; start 'dialer bridge'",
    "{cell}: no bridge serves it for {seconds} s; start 'dialer bridge'",
    "bridge {bridge}: the broker takes no tasks: {reason}",
    "bridge {bridge}: {phrase}",
    "bridge {bridge}: WRONG CLOCK: {phrase}",
    "no heartbeat for {seconds} s",
    "none ever did",
    "the cell has no PBX",
    "{pbx} does not claim its calls",
    "{pbx} does not claim its calls, and the oldest waits {seconds} s: see the log of its worker",
    "{n} requests wait for trunk {trunk}",
    "{n} requests wait for trunk {trunk}, and its carrier refuses calls for lack of capacity on "
    "{pbxs}: see 'dialer monitor'",
    "the Asterisk of {pbx} is slow and gets {rate} calls a second: see 'dialer monitor'",
    "{pbx} starts {rate} calls a second, and 'dialer pbx set {name} cps=N' allows more",
    "{pbx} has {n} of {most} calls, and 'dialer pbx set {name} max_calls=N' allows more",
    "{pbx} has {n} of {most} calls, and raise maxcalls in its asterisk.conf",
    # a Redis
    "{place} refuses to write ({reason}): `dialer doctor` says what is wrong",
    "{place} does not answer ({reason}): see that it runs and that this host reaches it",
    "the keys of {cell} in Redis cannot be used ({reason}): delete the one of a wrong type",
    # a change of a live parameter
    "cell {cell} is paused",
    "cell {cell} is no longer paused",
    "PBX {pbx} is drained",
    "PBX {pbx} is no longer drained",
    "{name} of cell {cell}: {old} -> {new}",
    "{name} of cell {cell}: {old} -> {new}, the value of dialer.toml",
    "{name} of PBX {pbx}: {old} -> {new}",
    "{name} of PBX {pbx}: {old} -> {new}, the value of dialer.toml",
    # an element of the dead list
    "discarded",
    "not tried, because Redis is slow: send it once more",
    # a call
    "bridge",
    "the customer",
    "worker of {pbx}",
    "to {pbx}",
    "to {pbx}, queued {n} times",
    "claimed and sent",
    "ACK sent, no code yet",
    "ACK sent, the code came",
    "ACK sent, no code came in time",
)


@dataclass(frozen=True, slots=True)
class _Form:
    """A phrase and its translation. `literals` stand before, between and after its `places`."""

    literals: Sequence[str]
    places: Sequence[str]
    translation: str

    @classmethod
    def of(cls, phrase: str, translation: str) -> _Form:
        parts = re.split(r"\{(\w+)\}", phrase)
        return cls(parts[::2], parts[1::2], translation)

    @property
    def size(self) -> int:
        """How much of a text it determines."""
        return sum(map(len, self.literals))

    def found_in(self, text: str) -> Mapping[str, str] | None:
        """Return what is in the places, None if the text has another form.

        Each literal is sought once, so that no text takes long.
        """
        first, *others = self.literals
        if not text.startswith(first):
            return None
        if not others:
            return {} if text == first else None
        at, values = len(first), dict[str, str]()
        for n, (place, literal) in enumerate(zip(self.places, others, strict=True), 1):
            end = len(text) - len(literal) if n == len(others) else text.find(literal, at + 1)
            if end <= at or not text.endswith(literal, at, end + len(literal)):
                return None
            value = text[at:end]
            if place in WORDS and " " in value:
                return None
            if values.setdefault(place, value) != value:
                return None
            at = end + len(literal)
        return values


class Phrasebook:
    """The phrases in one language."""

    def __init__(self, translate: Callable[[str], str]) -> None:
        forms = (_Form.of(phrase, translate(phrase)) for phrase in PHRASES)
        self._forms = sorted(forms, key=lambda form: form.size, reverse=True)
        self.say = lru_cache(2_000)(self._said)  # the same sentences come each second

    def _said(self, text: str, depth: int = 0) -> str | None:
        """Return a sentence, or several, in this language; None if one is not known."""
        if len(text) > LENGTH_MAX or depth > DEPTH_MAX:
            return None
        if (found := self._one(text, depth)) is not None:
            return found
        for before, between, after in _splits(text):
            first = self._one(before, depth + 1)
            if first is not None and (rest := self.say(after, depth + 1)) is not None:
                return f"{first}{between}{rest}"
        return None

    def _one(self, text: str, depth: int) -> str | None:
        for form in self._forms:
            if (values := form.found_in(text)) is None:
                continue
            known = dict(values)
            for place in SENTENCES & values.keys():
                said = self.say(values[place], depth + 1)
                if said is None and place == PHRASE:
                    break
                known[place] = said or values[place]
            else:
                return form.translation.format_map(known)
        return None


def _splits(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the text in two parts, each time at another place, with what is between them."""
    for between in BETWEEN:
        at = text.find(between)
        for _ in range(SPLITS_MAX):
            if at < 0:
                break
            yield text[:at], between, text[at + len(between) :]
            at = text.find(between, at + 1)
