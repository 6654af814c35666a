"""The steps of one Redis server that wait to be written, and the order in which they may be.

Two steps of a call are never under way together: Redis may refuse the first for now and run the
second. Knows nothing of connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

#: Steps that are not run any more when their caller no longer waits. Somebody who gave an order by
#: hand was told that Redis does not take it: an hour later he does not expect it. A decision log
#: that is written late would say that it was kept in the meantime.
TIMELY: Final = frozenset(
    {
        *("change", "dnc_change", "dead_send", "dead_discard"),
        *("user_set", "user_remove", "link", "link_make", "decided"),
    }
)


@dataclass(slots=True, eq=False)
class Step:
    """A step, or a read, which has no name. `calls` are the keys of the calls that it changes.

    `is_retry`: it was written before and has to run again. `behind`: how many of its calls have a
    step before it that is not finished.
    """

    name: str
    calls: tuple[str, ...]
    command: bytes
    done: asyncio.Future[Any]
    is_retry: bool = False
    behind: int = 0

    @property
    def is_timely(self) -> bool:
        """True if it must not run later than its caller waits, see `TIMELY`."""
        return self.name in TIMELY

    @property
    def is_abandoned(self) -> bool:
        """True if its caller was cancelled and no call needs it."""
        return self.done.done() and (self.is_timely or not self.calls)


@dataclass(slots=True)
class StepQueue:
    """Steps to write: first those that have to run again, then new ones.

    `retries` counts the steps that have to run again, those under way too. `timely` counts those of
    `TIMELY` that are not finished.
    """

    retries: int = 0
    timely: int = 0
    _again: deque[Step] = field(default_factory=deque)
    _new: deque[Step] = field(default_factory=deque)
    #: Call with a step that is not finished: the steps that wait for it.
    _behind: dict[str, deque[Step]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._again or self._new)

    def add(self, step: Step) -> None:
        """Add a new step; it waits while a call of it has one that is not finished."""
        self.timely += step.is_timely
        for call in step.calls:
            if (waiting := self._behind.get(call)) is None:
                self._behind[call] = deque()
            else:
                waiting.append(step)
                step.behind += 1
        if not step.behind:
            self._new.append(step)

    def first(self, n: int) -> list[Step]:
        """Return up to `n` steps that may be written now, without removing them."""
        if self.timely:
            self._drop(lambda step: step.is_timely)
        return list(islice(chain(self._again, self._new), n))

    def remove_first(self, n: int) -> None:
        """Remove the first `n` steps; they are under way."""
        for _ in range(n):
            (self._again or self._new).popleft()

    def finish(self, step: Step, reply: Any) -> None:
        """Give a step that is under way its reply; the next of its calls may be written."""
        self.retries -= step.is_retry
        self.timely -= step.is_timely
        if step.done.done():
            pass  # its caller was cancelled
        elif isinstance(reply, Exception):
            step.done.set_exception(reply)
        else:
            step.done.set_result(reply)
        for call in step.calls:
            if not (waiting := self._behind[call]):
                del self._behind[call]
                continue
            after = waiting.popleft()
            after.behind -= 1
            if not after.behind:
                self._new.append(after)

    def put_back(self, steps: Sequence[Step]) -> None:
        """Put back steps that were under way; they run again before new ones."""
        for step in steps:
            self.retries += not step.is_retry
            step.is_retry = True
        self._again += steps

    def drop_abandoned(self) -> None:
        """Forget abandoned steps, so that they do not pile up in an outage.

        One of each name remains, but of timely ones: the server counts as available when it takes
        that one too.
        """
        kept: set[str] = set()

        def is_surplus(step: Step) -> bool:
            if step.is_timely or step.name in kept:
                return True
            kept.add(step.name)
            return False

        self._drop(is_surplus)

    def _drop(self, is_surplus: Callable[[Step], bool]) -> None:
        """Finish those abandoned steps that are not needed, without running them."""
        for steps in (self._again, self._new):
            for _ in range(len(steps)):
                step = steps.popleft()
                if step.is_abandoned and is_surplus(step):
                    self.finish(step, None)
                else:
                    steps.append(step)

    def take_all(self) -> list[Step]:
        """Remove every step; return those without a result."""
        behind = chain.from_iterable(self._behind.values())
        steps = dict.fromkeys([*self._again, *self._new, *behind])
        self._again.clear()
        self._new.clear()
        self._behind.clear()
        self.timely = 0
        return [step for step in steps if not step.done.done()]
