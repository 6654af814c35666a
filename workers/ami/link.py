"""The AMI link of one PBX: kept up for ever, and the questions that are asked over it.

Every wait is bounded; what a connection is stands in `connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dialer.errors import (
    AmiCertificateRejected,
    AmiLoginRefused,
    AmiPermissionMissing,
    AmiUnavailable,
    ConfigError,
    OriginateOutcomeUnknown,
    OriginateRefused,
)
from dialer.settings import Pbx
from workers.ami import rights
from workers.ami.connection import Connection, Fields, connect, plain

logger = logging.getLogger(__name__)

#: Time for TCP, the login and any other question, in seconds.
ANSWER_WITHIN_S: Final = 5.0

#: A fresh Asterisk takes its time until it is fully booted. So long it is waited for on one link,
#: for a session keeps the rights that it logged in with. In seconds.
BOOTED_WITHIN_S: Final = 30.0

#: So long without a word, in seconds: a user without the right never hears of it.
BOOTED_SOON_S: Final = 8.0

#: Time for a list of all channels, or of all notes, in seconds.
LIST_WITHIN_S: Final = 30.0

#: Pause between two pings, in seconds. A pong that takes longer than ANSWER_WITHIN_S ends the link.
PING_EVERY_S: Final = 2.0

#: Pauses between attempts to connect: doubled from the first to the last, in seconds.
BACKOFF_S: Final = (0.25, 5.0)


@dataclass(slots=True)
class AmiLink:
    """Keeps a PBX's link up, for ever.

    `on_event` gets every wanted event's headers. `on_up` runs when Asterisk is logged in
    and fully booted; only after it returns is the link `ready`. `on_down` is called when
    a link that was up is lost.
    `up` is set while it is ready; `session` counts the connections made.
    """

    pbx: Pbx
    wanted: frozenset[str]
    on_event: Callable[[Fields], None]
    on_up: Callable[[], Awaitable[None]]
    on_down: Callable[[], None]
    up: asyncio.Event = field(default_factory=asyncio.Event)
    session: int = 0
    _connection: Connection | None = None
    _booted: asyncio.Event = field(default_factory=asyncio.Event)
    _trouble: str = ""
    _why: str = ""
    _unforgotten: set[str] = field(default_factory=set)
    _heard: asyncio.Future[None] | None = None

    @property
    def ready(self) -> bool:
        """True while calls can be placed."""
        connection = self._connection
        return self.up.is_set() and connection is not None and not connection.closed.done()

    # --- the connection's life -----------------------------------------------------

    async def run(self) -> None:
        """Connects, and connects again, until cancelled.

        Raises:
            AmiLoginRefused: the very first attempt was refused; later ones are made again.
            ConfigError: there is no secret at the very first attempt.
        """
        pause, longest = BACKOFF_S
        first = True
        while True:
            try:
                await self._connect()
                await self._live()
            except (AmiLoginRefused, ConfigError) as error:
                if first:
                    raise
                self._say(str(error))
            except AmiCertificateRejected as error:
                self._say(str(error))
            except (OSError, TimeoutError, AmiUnavailable) as error:
                self._say(
                    f"no AMI at {self.pbx.host}:{self.pbx.port} ({str(error) or 'no answer'})"
                )
            except Exception:
                logger.exception("AMI link failed; trying again", extra={"pbx": self.pbx.name})
            finally:
                if self.up.is_set():
                    pause = BACKOFF_S[0]
                self._drop()
            first = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    def drop(self, why: str) -> None:
        """Ends the present connection because of `why`; a new one is made."""
        self._close(why)

    def _say(self, trouble: str) -> None:
        """Says once what is wrong, until it changes or the link is back."""
        if trouble != self._trouble:
            self._trouble = trouble
            logger.error(
                "AMI link is down; trying again for ever, no new calls meanwhile",
                extra={"pbx": self.pbx.name, "reason": trouble},
            )

    def _drop(self) -> None:
        was_up = self.up.is_set()
        self.up.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if was_up:
            self.on_down()

    async def _connect(self) -> None:
        self._booted.clear()
        self.session += 1
        connection = await connect(self.pbx, self.wanted, self._event, within_s=ANSWER_WITHIN_S)
        self._connection = connection
        await self._answer(connection.authenticated_future, ANSWER_WITHIN_S)
        await asyncio.sleep(0)  # panoramisk notes the verdict in a callback of that future
        if not connection.authenticated:
            raise AmiLoginRefused(
                f"Asterisk at {self.pbx.host}:{self.pbx.port} refused the AMI login of "
                f"{self.pbx.username!r} for {self.pbx.name}: make username and secret in "
                "dialer.toml equal to manager.conf, and see that its permit line lets us in"
            )

    async def _live(self) -> None:
        """From login to the loss of the connection."""
        connection = self._connection
        assert connection is not None
        self._why = ""
        up = asyncio.create_task(self._get_ready(), name=f"AMI {self.pbx.name} gets ready")
        pings = asyncio.create_task(self._ping(), name=f"AMI {self.pbx.name} pings")
        try:
            await connection.closed
        finally:
            for task in (up, pings):
                task.cancel()
            results = await asyncio.gather(up, pings, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        self._say(self._why or "the connection was lost")

    async def _get_ready(self) -> None:
        try:
            await self._fully_booted()
            await self.on_up()
            for call_id in tuple(self._unforgotten):
                await self.forget(call_id)
        except AmiPermissionMissing as error:
            self._close(str(error))
        except AmiUnavailable as error:
            self._close(f"Asterisk is not ready after login ({error})")
        except BaseException:
            self._close("")
            raise
        else:
            self.up.set()
            if self._trouble:
                self._trouble = ""
                logger.warning("AMI link is back", extra={"pbx": self.pbx.name})

    async def _fully_booted(self) -> None:
        for within_s in (BOOTED_SOON_S, BOOTED_WITHIN_S - BOOTED_SOON_S):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._booted.wait()
                    return
            self._say(rights.not_booted(self.pbx))
        raise AmiPermissionMissing(rights.not_booted(self.pbx))

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            try:
                await self.ask({"Action": "Ping"})
            except AmiUnavailable:
                self._close("Asterisk does not answer pings")
                return

    def _close(self, why: str) -> None:
        """Ends the connection; `why` is said once it is over, the first reason only."""
        self._why = self._why or why
        if self._connection is not None:
            self._connection.close()

    def _event(self, fields: Fields) -> None:
        if fields.get("Event") == "FullyBooted":
            self._booted.set()
        elif rights.is_heard(fields):
            if self._heard is not None and not self._heard.done():
                self._heard.set_result(None)
        else:
            self.on_event(fields)

    # --- questions -----------------------------------------------------------------

    async def ask(self, action: Mapping[str, str | list[str]], **options: Any) -> Any:
        """Sends an action and returns Asterisk's first word, or its list where it sends one.

        Raises:
            AmiUnavailable: the link is down, was lost, or gave no answer in time.
            ValueError: a value would end the line it stands in, or is no text.
        """
        _refuse_unsendable(action)
        connection = self._connection
        if connection is None or connection.closed.done():
            raise AmiUnavailable(f"the AMI link of {self.pbx.name} is down")
        within_s = options.pop("within_s", ANSWER_WITHIN_S)
        return await self._answer(connection.send_action(dict(action), **options), within_s)

    async def _answer(self, future: asyncio.Future[Any], within_s: float) -> Any:
        connection = self._connection
        if connection is None:
            raise AmiUnavailable(f"the AMI link of {self.pbx.name} is down")
        await asyncio.wait(
            {future, connection.closed}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED
        )
        if future.done():
            return future.result()
        future.cancel()
        raise AmiUnavailable(
            "the link was lost" if connection.closed.done() else f"no answer within {within_s:g} s"
        )

    async def originate(
        self, fields: Mapping[str, str | list[str]], *, action_id: str, within_s: float
    ) -> None:
        """Originates asynchronously; returns when Asterisk has taken it.

        Raises:
            AmiUnavailable: the link is not ready; nothing was sent.
            OriginateRefused: Asterisk said no; nothing was dialed.
            OriginateOutcomeUnknown: it was sent, and no word came within `within_s` seconds.
            ValueError: a value would end the line it stands in, or is no text; nothing was sent.
        """
        if not self.ready:
            raise AmiUnavailable(f"the AMI link of {self.pbx.name} is down")
        action = {"Action": "Originate", "ActionID": action_id, "Async": "true", **fields}
        _refuse_unsendable(action)
        try:
            reply = await self.ask(action, as_list=False, within_s=within_s)
        except AmiUnavailable as error:
            raise OriginateOutcomeUnknown(str(error)) from error
        if not reply.success:
            raise OriginateRefused(str(reply.message) or "Asterisk gave no reason")

    async def check_rights(self) -> None:
        """Makes sure, without a call, that calls can be placed and that their ends are told.

        Raises:
            AmiPermissionMissing: the AMI user lacks a right; the sentence says which.
            AmiUnavailable: the link was lost, or Asterisk refused for another reason.
        """
        await self._check_allowed()
        self._heard = heard = asyncio.get_running_loop().create_future()
        await self._granted(rights.HEARING, as_list=False)
        try:
            await self._answer(heard, ANSWER_WITHIN_S)
        except AmiUnavailable as error:
            await self.ask({"Action": "Ping"})  # a link that is lost or hangs is another matter
            raise AmiPermissionMissing(rights.deaf(self.pbx)) from error

    async def _check_allowed(self) -> None:
        commands = await self.ask({"Action": "ListCommands"}, as_list=False)
        if commands.success and (trouble := rights.not_allowed(self.pbx, commands)):
            raise AmiPermissionMissing(trouble)

    async def _messages(self, action: Mapping[str, str], **options: Any) -> list[Any]:
        """Asterisk's messages on a question, whether it sends a list or a single one."""
        reply = await self.ask(action, **options)
        return reply if isinstance(reply, list) else [reply]

    async def _granted(self, action: Mapping[str, str], **options: Any) -> list[Any]:
        """Asterisk's messages on a question that it has to answer.

        Raises:
            AmiPermissionMissing: the AMI user may not ask.
            AmiUnavailable: it did not answer, or said no for another reason.
        """
        messages = await self._messages(action, **options)
        if not messages[0].success:
            await self._check_allowed()
            raise AmiUnavailable(f"Asterisk refuses {action['Action']}: {messages[0].message}")
        return messages

    async def channels(self) -> dict[str, dict[str, str]]:
        """The headers of every live channel, by Uniqueid."""
        messages = await self._granted({"Action": "CoreShowChannels"}, within_s=LIST_WITHIN_S)
        return {m.uniqueid: plain(m) for m in messages if m.event == "CoreShowChannel"}

    async def boot(self) -> str:
        """When this Asterisk started, in its own words: it changes with every start."""
        (reply,) = await self._granted({"Action": "CoreStatus"})
        return f"{reply.corestartupdate} {reply.corestartuptime}"

    async def version(self) -> str:
        """Asterisk's version, such as `22.10.0`."""
        (reply,) = await self._granted({"Action": "CoreSettings"})
        return str(reply.asteriskversion)

    async def has_include(self) -> bool:
        """True where the dialplan include that we ship is loaded."""
        return await self._value("DIALPLAN_EXISTS(dialer-end,s,1)") == "1"

    async def has_hand_over(self) -> bool:
        """True where that include is new enough to hand calls over to queues and to use AMD."""
        return await self._value("DIALPLAN_EXISTS(dialer-hand-over,s,1)") == "1"

    async def has_context(self, context: str) -> bool:
        """False where the dialplan has no such context; func_dialplan must be there to say so."""
        return await self._value(f"DIALPLAN_EXISTS({context})") != "0"

    async def has_queue(self, name: str) -> bool:
        """True where app_queue is loaded and knows that queue, a realtime one too."""
        return await self._value(f"QUEUE_EXISTS({name})") == "1"

    async def has_amd(self) -> bool:
        """False where app_amd is not there; without amd.conf it is, and does not run.

        Only a call tells that. A reload would too, but app_amd then forgets its silence_threshold.
        """
        messages = await self._messages({"Action": "ModuleCheck", "Module": "app_amd.so"})
        return bool(messages[0].success)

    async def _value(self, function: str) -> str:
        """What a dialplan function says; nothing where there is no such function."""
        (reply,) = await self._granted({"Action": "Getvar", "Variable": function})
        return str(reply.value)

    async def note(self, call_id: str) -> str | None:
        """What the dialplan wrote down of a call in AstDB, None where it wrote nothing."""
        messages = await self._messages({"Action": "DBGet", "Family": "dialer", "Key": call_id})
        return next((str(m.val) for m in messages if m.event == "DBGetResponse"), None)

    async def notes(self) -> dict[str, str]:
        """Everything that the dialplan wrote down, by call; Asterisk 16.24 and later tell."""
        question = {"Action": "DBGetTree", "Family": "dialer"}
        messages = await self._messages(question, within_s=LIST_WITHIN_S)
        return {
            str(m.key).removeprefix("/dialer/"): str(m.val)
            for m in messages
            if m.event == "DBGetTreeResponse"
        }

    async def forget(self, call_id: str) -> None:
        """Deletes what the dialplan wrote down of a call."""
        self._unforgotten.add(call_id)  # tried again when the link comes back
        with contextlib.suppress(AmiUnavailable):
            await self.ask({"Action": "DBDel", "Family": "dialer", "Key": call_id})
            self._unforgotten.discard(call_id)


def _refuse_unsendable(action: Mapping[str, str | list[str]]) -> None:
    """The last of the doors: nothing that reaches AMI may end or add a line."""
    for name, value in action.items():
        for text in (name, *value) if isinstance(value, list) else (name, value):
            if any(end in text for end in "\r\n\0"):
                raise ValueError(f"{name!r} holds a line end")
            text.encode()  # a lone surrogate would be dropped on the way, and no answer come
