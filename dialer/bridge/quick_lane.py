"""The quick lane to a broker that is a Redis: the event loop writes the tasks, without a thread.

kombu takes 0.9 ms for a task that comes alone, most of it because its thread must wake up and share
the interpreter. This writes what kombu would write (a test compares both). Whatever the lane
cannot send goes the other way, to kombu, which finds out what is wrong with the broker.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from celery import Celery
from kombu import serialization
from kombu.utils.json import dumps
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError

from dialer.bridge.nudges import Nudge, by_pbx, message_of
from dialer.store.client import cancel
from dialer.store.shared_connection import SharedConnection, pack

logger = logging.getLogger(__name__)

#: Maximum number of tasks without a reply, about 1 kB each. With more the broker is slow, and the
#: bridge waits for it on the other way.
OWED_MAX: Final = 10_000

#: A connection on which the broker replies later than this is given up, in seconds.
REPLY_WITHIN_S: Final = 1.0

#: Pause between two attempts to connect, in seconds.
AGAIN_AFTER_S: Final = 1.0


class Then(Protocol):
    """Gets the tasks that the broker did not take, when it has replied to all sent together.

    `is_well`: it took them all.
    """

    def __call__(self, refused: Sequence[Nudge], *, is_well: bool) -> None: ...


def packed(app: Celery, nudge: Nudge) -> str:
    """Return the element of the list of its PBX, as kombu 5.7 writes it to Redis."""
    message = message_of(app, nudge)
    content_type, encoding, body = serialization.dumps(message.body, "json")
    properties = {
        **message.properties,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": nudge.pbx},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    return dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": encoding,
            "content-type": content_type,
            "headers": message.headers,
            "properties": properties,
        }
    )


@dataclass(slots=True)
class QuickLane:
    """The lane to the broker `redis`, which nobody else uses. Belongs to one event loop."""

    app: Celery
    redis: Redis
    owed: int = 0
    _connection: SharedConnection | None = None
    _opening: asyncio.Task[None] | None = None
    _tried_at: float = -AGAIN_AFTER_S

    def send(self, nudges: Sequence[Nudge], then: Then) -> bool:
        """Write the tasks, in order of each PBX; return false if they must go the other way."""
        connection = self._usable()
        if connection is None:
            self._open()
            return False
        if self.owed + len(nudges) > OWED_MAX:
            return False
        parts = dict(by_pbx(nudges))
        commands = [
            pack("LPUSH", pbx, *(packed(self.app, nudge) for nudge in part))
            for pbx, part in parts.items()
        ]
        self.owed += len(nudges)
        connection.send(commands, partial(self._take_replies, [*parts.values()], then))
        return True

    def ping(self, then: Then) -> bool:
        """Ask the broker whether it is there; return false if there is no connection."""
        connection = self._usable()
        if connection is None:
            return False
        if not self.owed:  # otherwise it is about to reply
            connection.send([pack("PING")], partial(self._take_replies, [[]], then))
        return True

    async def close(self) -> None:
        """Close the connection; what has no reply goes the other way."""
        if self._opening is not None:
            await cancel([self._opening])
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        await self.redis.aclose()

    def _take_replies(
        self, parts: Sequence[Sequence[Nudge]], then: Then, replies: list[Any] | Exception
    ) -> None:
        self.owed -= sum(map(len, parts))
        if isinstance(replies, Exception):  # some may have been taken; a second task does nothing
            then([nudge for part in parts for nudge in part], is_well=False)
            return
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if not all(map(is_about_queue, errors)) and self._connection is not None:
            # Such as a server that became a replica: another connection may find the master.
            self._connection.lose(RedisConnectionError(f"the broker refused: {errors[0]}"))
        pairs = zip(parts, replies, strict=True)
        refused = [nudge for part, reply in pairs if isinstance(reply, Exception) for nudge in part]
        then(refused, is_well=not errors)

    def _usable(self) -> SharedConnection | None:
        """Return the connection, None if there is none."""
        is_open = self._connection is not None and self._connection.is_open
        return self._connection if is_open else None

    def _open(self) -> None:
        """Connect in the background."""
        loop = asyncio.get_running_loop()
        if self._opening is None and loop.time() - self._tried_at >= AGAIN_AFTER_S:
            self._tried_at = loop.time()
            self._opening = loop.create_task(self._connect(), name="quick lane")

    async def _connect(self) -> None:
        try:
            if self._connection is not None:
                await self._connection.close()
            self._connection = await SharedConnection.open(self.redis, REPLY_WITHIN_S)
        except (RedisError, OSError) as error:
            # The other way finds out and says why, if it fails too.
            logger.debug("The quick lane does not connect", extra={"error": str(error)})
        finally:
            self._opening = None


def is_about_queue(error: BaseException) -> bool:
    """True if a Redis refused one list, and may take what is for others."""
    return isinstance(error, NoPermissionError) or "WRONGTYPE" in str(error)
