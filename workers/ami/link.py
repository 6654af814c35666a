"""The AMI link of one PBX: keep a connection up, and send actions over it.

Every wait has a timeout. A single connection is in `connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dialer.domain.asterisk_version import is_too_old
from dialer.errors import (
    AmiCertificateRejected,
    AmiLoginInUse,
    AmiLoginRefused,
    AmiPermissionMissing,
    AmiUnavailable,
    AsteriskTooOld,
    ConfigError,
    Fenced,
    OriginateOutcomeUnknown,
    OriginateRefused,
)
from dialer.settings import Pbx
from workers.ami import rights
from workers.ami.connection import Connection, Fields, connect, plain

logger = logging.getLogger(__name__)

#: Timeout of TCP, the login and every other action, in seconds.
ANSWER_WITHIN_S: Final = 5.0

#: Reconnect if FullyBooted does not arrive within this time: a session keeps its permissions from
#: the login, so one without `system` never gets the event. In seconds.
BOOTED_WITHIN_S: Final = 30.0

#: Warn if FullyBooted has not arrived after this many seconds; a user without `system` in `read`
#: never gets it.
BOOTED_SOON_S: Final = 8.0

#: Timeout of a list of all channels, or of all records, in seconds.
LIST_WITHIN_S: Final = 30.0

#: Pause between two pings, in seconds. A pong that takes longer than ANSWER_WITHIN_S ends the link.
PING_EVERY_S: Final = 2.0

#: If Asterisk was asked something and sent nothing for so long, no calls are dialed, in seconds.
SILENT_AFTER_S: Final = 2.0

#: First and longest pause between attempts to connect; it doubles each time. In seconds.
BACKOFF_S: Final = (0.25, 5.0)

#: Items of a list that are handled in one turn of the event loop.
SLICE: Final = 100


@dataclass(slots=True)
class AmiLink:
    """Reconnecting link of one PBX.

    `on_event` gets the headers of every wanted event. `on_up` runs after the login, when Asterisk
    is fully booted; the link is `ready` only after it returns. `on_down` is called when a link
    that was up is lost. `up` is set while it is ready; `session` counts the connections.
    """

    pbx: Pbx
    wanted: frozenset[str]
    on_event: Callable[[Fields], None]
    on_up: Callable[[], Awaitable[None]]
    on_down: Callable[[], None] | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)
    session: int = 0
    _connection: Connection | None = None
    _booted: asyncio.Event = field(default_factory=asyncio.Event)
    _trouble: str = ""
    _why: str = ""
    _undeleted: set[str] = field(default_factory=set)
    _probe: tuple[rights.Probe, asyncio.Future[None]] | None = None
    #: When each action without a reply was sent, by the loop's clock; the oldest first.
    _unanswered: dict[asyncio.Future[Any], float] = field(default_factory=dict)
    #: How long the latest pongs took, in seconds.
    _ping_times: list[float] = field(default_factory=list)

    @property
    def trouble(self) -> str:
        """Why the link is down, with the cure; empty while it is up or connecting at first."""
        return self._trouble

    @property
    def ready(self) -> bool:
        """True if actions and calls can be sent now."""
        connection = self._connection
        return self.up.is_set() and connection is not None and not connection.closed.done()

    @property
    def silence(self) -> str:
        """A sentence with the cure while Asterisk sends nothing although it was asked, else ''.

        So calls do not pile up on a link that is broken without a word, before the pings find it.
        """
        connection = self._connection
        if connection is None or not self._unanswered:
            return ""
        now, oldest = asyncio.get_running_loop().time(), next(iter(self._unanswered.values()))
        if now - max(oldest, connection.heard_at()) < SILENT_AFTER_S:
            return ""
        return (
            f"the Asterisk of {self.pbx.name} does not answer: see that it runs, is not "
            "overloaded, and that the worker's host reaches it"
        )

    @property
    def unread_bytes(self) -> int:
        """How many bytes of ours Asterisk has not read yet."""
        return self._connection.unread_bytes if self._connection is not None else 0

    def take_ping_times(self) -> list[float]:
        """Return how long the pongs since the last call took, in seconds."""
        times, self._ping_times = self._ping_times, []
        return times

    # --- connecting ----------------------------------------------------------------

    async def run(self) -> None:
        """Connect and reconnect until cancelled.

        Raises:
            AmiLoginRefused: the first attempt was refused; later ones are retried.
            ConfigError: there is no secret at the first attempt.
            Fenced: another worker has taken over this PBX.
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
                self._log_trouble(str(error))
            except (AmiCertificateRejected, AmiLoginInUse) as error:
                self._log_trouble(str(error))
            except (OSError, TimeoutError, AmiUnavailable) as error:
                self._log_trouble(
                    f"no AMI at {self.pbx.host}:{self.pbx.port} ({str(error) or 'no answer'})"
                )
            except Fenced:
                raise
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
        """Close the connection with `why` as the logged reason; `run` reconnects."""
        self._close(why)

    def _log_trouble(self, trouble: str) -> None:
        """Log a problem once, until it changes or the link is back."""
        if trouble != self._trouble:
            self._trouble = trouble
            logger.error(
                "AMI link is down; reconnecting until it succeeds, no new calls in the meantime",
                extra={"pbx": self.pbx.name, "reason": trouble},
            )

    def _drop(self) -> None:
        was_up = self.up.is_set()
        self.up.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if was_up and self.on_down is not None:
            self.on_down()

    async def _connect(self) -> None:
        self._booted.clear()
        self.session += 1
        connection = await connect(self.pbx, self.wanted, self._event, within_s=ANSWER_WITHIN_S)
        self._connection = connection
        connection.closed.add_done_callback(self._fail_unanswered)
        reply = await self._answer(connection.authenticated_future, ANSWER_WITHIN_S)
        await asyncio.sleep(0)  # panoramisk sets `authenticated` in a callback of that future
        if not connection.authenticated:
            if str(reply.message) == rights.LOGIN_IN_USE:
                raise AmiLoginInUse(rights.login_in_use(self.pbx))
            raise AmiLoginRefused(rights.login_refused(self.pbx))

    async def _live(self) -> None:
        """Run from the login until the connection is lost."""
        connection = self._connection
        assert connection is not None
        self._why = ""
        up = asyncio.create_task(self._get_ready(), name=f"AMI {self.pbx.name} gets ready")
        pings = asyncio.create_task(self._ping(), name=f"AMI {self.pbx.name} pings")
        rest = asyncio.create_task(self._delete_rest(), name=f"AMI {self.pbx.name} deletes records")
        try:
            await connection.closed
        finally:
            for task in (up, pings, rest):
                task.cancel()
            results = await asyncio.gather(up, pings, rest, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        self._log_trouble(self._why or "the connection was lost")

    async def _get_ready(self) -> None:
        try:
            await self._fully_booted()
            await self.on_up()
        except (AmiPermissionMissing, AsteriskTooOld) as error:
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

    async def _delete_rest(self) -> None:
        """Delete records that earlier connections could not delete, after the link is ready."""
        await self.up.wait()
        for uniqueid in tuple(self._undeleted):
            await self.delete_record(uniqueid)

    async def _fully_booted(self) -> None:
        for within_s in (BOOTED_SOON_S, BOOTED_WITHIN_S - BOOTED_SOON_S):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._booted.wait()
                    return
            self._log_trouble(rights.not_booted(self.pbx))
        raise AmiPermissionMissing(rights.not_booted(self.pbx))

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            loop = asyncio.get_running_loop()
            pinged_at = loop.time()
            try:
                await self.ask({"Action": "Ping"})
            except AmiUnavailable:
                self._close("Asterisk does not answer pings")
                return
            # Nobody may take them.
            self._ping_times = [*self._ping_times[-9:], loop.time() - pinged_at]

    def _close(self, why: str) -> None:
        """Close the connection; the first `why` is logged once it is closed."""
        self._why = self._why or why
        if self._connection is not None:
            self._connection.close()

    def _event(self, fields: Fields) -> None:
        if fields.get("Event") == "FullyBooted":
            self._booted.set()
        elif not self._is_of_probe(fields):
            self.on_event(fields)

    def _is_of_probe(self, fields: Fields) -> bool:
        if self._probe is None:
            return False
        probe, complete = self._probe
        is_of_probe = probe.hears(fields)
        if probe.is_complete and not complete.done():
            complete.set_result(None)
        return is_of_probe

    # --- actions -------------------------------------------------------------------

    async def ask(
        self,
        action: Mapping[str, str | list[str]],
        *,
        as_list: bool | None = None,
        within_s: float | None = None,
    ) -> Any:
        """Send an action; return Asterisk's reply, or its list if it sends one.

        `within_s` is ANSWER_WITHIN_S if it is not given.

        Raises:
            AmiUnavailable: the link is down or was lost, or no reply arrived in time.
            ValueError: a value contains a line end, or is not valid text.
        """
        _refuse_unsendable(action)
        connection = self._connection
        if connection is None or connection.closed.done():
            raise AmiUnavailable(f"the AMI link of {self.pbx.name} is down")
        loop = asyncio.get_running_loop()
        within_s = ANSWER_WITHIN_S if within_s is None else within_s
        sent = connection.send(action, as_list=as_list)
        reply: asyncio.Future[Any] = sent.future
        self._unanswered[reply] = loop.time()
        late = loop.call_later(within_s, _fail, reply, f"no answer within {within_s:g} s")
        try:
            return await reply
        finally:
            late.cancel()
            del self._unanswered[reply]
            connection.drop(sent)

    def _fail_unanswered(self, _: object) -> None:
        """Fail every action without a reply: panoramisk never ends its future."""
        for reply in self._unanswered:
            _fail(reply, "the link was lost")

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

    async def hang_up(self, uniqueid: str) -> str:
        """Hang up the channel of that Uniqueid; return why Asterisk refused, '' if it did not.

        Raises:
            AmiUnavailable: the link is not ready or was lost, or no reply arrived in time.
        """
        if not self.ready:
            raise AmiUnavailable(f"the AMI link of {self.pbx.name} is down")
        action = {"Action": "Hangup", "Channel": uniqueid, "Cause": "16"}
        reply = await self.ask(action, as_list=False)
        return "" if reply.success else str(reply.message)

    async def originate(
        self, fields: Mapping[str, str | list[str]], *, action_id: str, within_s: float
    ) -> None:
        """Originate asynchronously; return when Asterisk has accepted it.

        Raises:
            AmiUnavailable: the link is not ready; nothing was sent.
            OriginateRefused: Asterisk refused it; nothing was dialed.
            OriginateOutcomeUnknown: it was sent, and no reply arrived in `within_s` seconds.
            ValueError: a value contains a line end, or is not valid text; nothing was sent.
        """
        if not self.ready:
            raise AmiUnavailable(f"the AMI link of {self.pbx.name} is down")
        action = {"Action": "Originate", "ActionID": action_id, "Async": "true", **fields}
        try:
            reply = await self.ask(action, as_list=False, within_s=within_s)
        except AmiUnavailable as error:
            raise OriginateOutcomeUnknown(str(error)) from error
        if not reply.success:
            raise OriginateRefused(str(reply.message) or "Asterisk gave no reason")

    async def check_rights(self) -> None:
        """Check, without a call, that the AMI user may originate and gets the events of a call.

        Raises:
            AmiPermissionMissing: the AMI user lacks a permission; the sentence says which.
            AmiUnavailable: the link was lost, or Asterisk refused for another reason.
        """
        await self._check_allowed()
        complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        probe, _ = self._probe = rights.Probe(), complete
        await self._granted(probe.action, as_list=False)
        try:
            await self._answer(complete, ANSWER_WITHIN_S)
        except AmiUnavailable as error:
            await self.ask(
                {"Action": "Ping"}
            )  # only if the link works: else the reason is the link
            sentence = rights.missing_call_events(self.pbx, probe.heard)
            raise AmiPermissionMissing(sentence) from error
        finally:
            self._probe = None

    async def check_version(self) -> None:
        """Check that Asterisk knows `ChannelId`, without which no event can be recognized.

        Raises:
            AsteriskTooOld: it is older than 12; the sentence says which version it is.
            AmiUnavailable: the link was lost, or Asterisk refused for another reason.
        """
        reply = await self._first({"Action": "CoreSettings"})
        if is_too_old(ami=str(reply.amiversion), asterisk=str(reply.asteriskversion)):
            raise AsteriskTooOld(rights.too_old(self.pbx, str(reply.asteriskversion)))

    async def _check_allowed(self) -> None:
        commands = await self.ask({"Action": "ListCommands"}, as_list=False)
        if commands.success and (trouble := rights.not_allowed(self.pbx, commands)):
            raise AmiPermissionMissing(trouble)

    async def _messages(self, action: Mapping[str, str], **options: Any) -> list[Any]:
        """Send an action; return Asterisk's messages, also if it sends only one."""
        reply = await self.ask(action, **options)
        return reply if isinstance(reply, list) else [reply]

    async def _granted(self, action: Mapping[str, str], **options: Any) -> list[Any]:
        """Send an action that must succeed; return Asterisk's messages.

        Raises:
            AmiPermissionMissing: the AMI user may not send this action.
            AmiUnavailable: there was no reply, or a refusal for another reason.
        """
        messages = await self._messages(action, **options)
        if not messages[0].success:
            await self._check_allowed()
            raise AmiUnavailable(f"Asterisk refuses {action['Action']}: {messages[0].message}")
        return messages

    async def _first(self, action: Mapping[str, str]) -> Any:
        """Send an action that must succeed and has one reply; return that."""
        return (await self._granted(action, as_list=False))[0]

    async def channels(self) -> dict[str, dict[str, str]]:
        """Return the headers of every live channel, by Uniqueid. Use rarely: it is a long list.

        Raises:
            AmiUnavailable: the list did not come, or lacks channels: none counts as gone then.
        """
        messages = await self._granted({"Action": "CoreShowChannels"}, within_s=LIST_WITHIN_S)
        counted, listed = messages[-1].listitems, 0
        found: dict[str, dict[str, str]] = {}
        for n in range(1, len(messages) + 1):
            message = messages.pop()  # freed one by one: 10,000 at once block the loop for 15 ms
            if message.event == "CoreShowChannel":
                listed += 1
                found[message.uniqueid] = plain(message)
            if n % SLICE == 0:
                await asyncio.sleep(0)
        if counted and counted != str(listed):
            raise AmiUnavailable(f"only {listed} of {counted} channels were listed")
        return found

    async def has_channel(self, uniqueid: str) -> bool:
        """True if a channel of that Uniqueid is up; asks only for this channel."""
        question = {"Action": "Getvar", "Channel": uniqueid, "Variable": "UNIQUEID"}
        reply = await self.ask(question, as_list=False)
        return not (reply.response == "Error" and reply.message == "No such channel")

    async def boot(self) -> str:
        """Return the start time of Asterisk as text; it changes with every start."""
        reply = await self._first({"Action": "CoreStatus"})
        return f"{reply.corestartupdate} {reply.corestartuptime}"

    async def version(self) -> str:
        """Return Asterisk's version, such as `22.10.0`."""
        reply = await self._first({"Action": "CoreSettings"})
        return str(reply.asteriskversion)

    async def identity(self) -> str:
        """Return what tells this Asterisk from others: its entity id if it has one, and address."""
        address = f"{self.pbx.host}:{self.pbx.port}"
        entity = await self._value("ENTITYID")
        return f"{entity} at {address}" if entity else address

    async def has_include(self) -> bool:
        """True if the dialplan include that we ship is loaded."""
        return await self._value("DIALPLAN_EXISTS(dialer-end,s,1)") == "1"

    async def has_current_include(self) -> bool:
        """True if the loaded include reports the hand-over; it then supports queues and AMD."""
        return await self._value("DIALPLAN_EXISTS(dialer-handed,s,1)") == "1"

    async def has_context(self, context: str) -> bool:
        """False if the dialplan has no such context; without func_dialplan always True."""
        return await self._value(f"DIALPLAN_EXISTS({context})") != "0"

    async def has_queue(self, name: str) -> bool:
        """True if app_queue is loaded and has that queue (static or realtime)."""
        return await self._value(f"QUEUE_EXISTS({name})") == "1"

    async def has_amd(self) -> bool:
        """False if app_amd is not loaded. Without amd.conf it is loaded but does not run.

        Only a call detects that. A reload would too, but it resets app_amd's silence_threshold.
        """
        reply = await self.ask({"Action": "ModuleCheck", "Module": "app_amd.so"}, as_list=False)
        return bool(reply.success)

    async def _value(self, function: str) -> str:
        """Return the value of a dialplan function; empty if there is no such function."""
        reply = await self._first({"Action": "Getvar", "Variable": function})
        return str(reply.value)

    async def record(self, uniqueid: str) -> str | None:
        """Return a channel's record in AstDB, None if there is none."""
        messages = await self._messages({"Action": "DBGet", "Family": "dialer", "Key": uniqueid})
        return next((str(m.val) for m in messages if m.event == "DBGetResponse"), None)

    async def records(self) -> dict[str, str]:
        """Return all AstDB records by Uniqueid; empty before Asterisk 16.24, which cannot list."""
        question = {"Action": "DBGetTree", "Family": "dialer"}
        messages = await self._messages(question, within_s=LIST_WITHIN_S)
        return {
            str(m.key).removeprefix("/dialer/"): str(m.val)
            for m in messages
            if m.event == "DBGetTreeResponse"
        }

    async def delete_record(self, uniqueid: str) -> None:
        """Delete a channel's record in AstDB; retried when the link comes back."""
        self._undeleted.add(uniqueid)
        with contextlib.suppress(AmiUnavailable):
            await self.ask({"Action": "DBDel", "Family": "dialer", "Key": uniqueid})
            self._undeleted.discard(uniqueid)


def _fail(reply: asyncio.Future[Any], why: str) -> None:
    """End the wait for a reply."""
    if not reply.done():
        reply.set_exception(AmiUnavailable(why))
        reply.exception()  # read, so that asyncio does not complain if nobody waits any longer


_LINE_END: Final = re.compile("[\r\n\0]")


def _refuse_unsendable(action: Mapping[str, str | list[str]]) -> None:
    """Raise ValueError if a header contains CR, LF or NUL (last defence against AMI injection)."""
    for name, value in action.items():
        text = "".join((name, *value)) if isinstance(value, list) else name + value
        if _LINE_END.search(text):
            raise ValueError(f"{name!r} contains a line end")
        text.encode()  # raises for lone surrogates; panoramisk would never get a reply
