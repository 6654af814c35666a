"""Stand-ins for the ledger, the registry and other parts that a unit test does not run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def a(**fields: Any) -> Any:
    """An object with these attributes."""
    return SimpleNamespace(**fields)


class Notes(list[Any]):
    """What was called, in order: tuples of a name, the arguments, and a dict of named ones."""

    def of(self, name: str, reply: Any = None) -> Any:
        """An async function that notes its call. `reply`: its result, what makes it, or an error"""

        async def called(*args: Any, **more: Any) -> Any:
            self.append((name, *args, *([more] if more else [])))
            result = reply(*args, **more) if callable(reply) else reply
            if isinstance(result, BaseException):
                raise result
            return result

        return called

    def now_of(self, name: str, reply: Any = None) -> Any:
        """`of` for a function that is not async."""

        def called(*args: Any, **more: Any) -> Any:
            self.append((name, *args, *([more] if more else [])))
            return reply

        return called

    @property
    def names(self) -> list[str]:
        return [note[0] for note in self]

    def given(self, name: str) -> list[Any]:
        """What the calls of that name were given: the only argument, or all of them."""
        return [note[1] if len(note) == 2 else note[1:] for note in self if note[0] == name]


#: What the settings of a cell say that dials for no operators.
DIALS_FOR_NOBODY = {"asks_asterisk": False, "asks_multcall": False, "calls_of_multcall": 0.0}
