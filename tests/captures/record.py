"""Records what a real Asterisk says over AMI, one file for each scenario.

    python tests/captures/record.py                             everything, both versions
    python tests/captures/record.py --pbx asterisk16 busy rings_out

Needs the lab (tests/acceptance/lab) to be up. Each file is the raw text that came from
Asterisk on one connection, from the banner on; what the client sent is not in it, so no
secret is. The manager user is the lab's `dialer`, with the rights of manager.d/dialer.conf.
The order of events differs a little from one recording to the next: Asterisk promises none
between OriginateResponse and the channel's own events.

Standard library only, and nothing from this project: a capture must not depend on the
code that is tested with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
PORTS = {
    "asterisk16": int(os.environ.get("LAB_AMI16_PORT", "15039")),
    "asterisk22": int(os.environ.get("LAB_AMI22_PORT", "15038")),
}
USERNAME, SECRET = "dialer", "lab-secret"  # the lab's own
UNIQUEID = "asr-tim.iavsbj64m5n3nyxbt4x4"  # the call's ChannelId
FIRST, SECOND = f"{UNIQUEID}#1", f"{UNIQUEID}#2"
NUMBER = "5511987650"  # and two digits, which say what the carrier does
WAIT_S = 20.0
QUIET_S = 0.5

Message = dict[str, str]
Scenario = Callable[["Manager"], Awaitable[None]]


class Manager:
    """One AMI connection that keeps every byte it receives."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = 0
    ) -> None:
        self.received = b""
        self.port = port
        self._reader = reader
        self._writer = writer

    async def login(self, secret: str = SECRET, username: str = USERNAME) -> None:
        """Ask to be let in."""
        await self.send("Login", Username=username, Secret=secret)

    async def send(self, action: str, *variables: str, **headers: str | int) -> None:
        """Send one action; each variable becomes a `Variable:` header."""
        lines = [f"Action: {action}", *(f"{name}: {value}" for name, value in headers.items())]
        lines += [f"Variable: {variable}" for variable in variables]
        self._writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        await self._writer.drain()

    async def originate(self, channel: str, *variables: str, **headers: str | int) -> None:
        """Originate as the worker does; `headers` replace or add to what it sends."""
        sent: dict[str, str | int] = {
            "ActionID": FIRST,
            "ChannelId": UNIQUEID,
            "Channel": channel,
            "Context": "dialer-enter",
            "Exten": "s",
            "Priority": 1,
            "Timeout": 30_000,
            "CallerID": "Cobranca <1130304040>",
            "Async": "true",
        }
        context = ("DIALER_CONTEXT=dialer-ura", "DIALER_EXTEN=s", "DIALER_PRIORITY=1")
        await self.send("Originate", *(variables or context), **(sent | headers))

    async def until(self, **wanted: str) -> None:
        """Read until a message has come that holds all these headers."""
        async with asyncio.timeout(WAIT_S):
            while not any(wanted.items() <= message.items() for message in self.messages()):
                part = await self._reader.read(65_536)
                if not part:
                    raise ConnectionError(f"Asterisk closed the link before {wanted}")
                self.received += part

    async def quiet(self) -> None:
        """Read until nothing has come for a while."""
        try:
            while part := await asyncio.wait_for(self._reader.read(65_536), QUIET_S):
                self.received += part
        except TimeoutError:
            pass

    async def ended(self, action_id: str = FIRST) -> None:
        """Read until the call is over: both words on its end are there, in any order."""
        await self.until(Event="OriginateResponse", ActionID=action_id)
        await self.until(Event="Hangup", Uniqueid=UNIQUEID)

    def messages(self) -> list[Message]:
        """What has come so far; a header that is repeated shows its last value."""
        text = self.received.decode()
        return [
            dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            for block in text.split("\r\n\r\n")
        ]

    def channel(self) -> str:
        """The channel of the call, as Newchannel named it."""
        return next(
            message["Channel"]
            for message in self.messages()
            if message.get("Event") == "Newchannel" and message.get("Uniqueid") == UNIQUEID
        )

    def close(self) -> None:
        self._writer.close()


def trunk(last_digits: str) -> str:
    """Dial string over SIP; the digits say what the carrier does."""
    return f"PJSIP/{NUMBER}{last_digits}@carrier"


def local(last_digits: str) -> str:
    """Dial string of a Local channel with the same meaning."""
    return f"Local/{NUMBER}{last_digits}@local-trunk/n"


def call(channel: str, *variables: str, **headers: str | int) -> Scenario:
    """A scenario: originate, and follow the call to its end."""

    async def scenario(manager: Manager) -> None:
        await manager.originate(channel, *variables, **headers)
        await manager.ended()

    return scenario


def refused(channel: str, **headers: str | int) -> Scenario:
    """A scenario: an Originate of which no channel comes."""

    async def scenario(manager: Manager) -> None:
        await manager.originate(channel, **headers)
        await manager.until(ActionID=FIRST)

    return scenario


def ask(action: str, **headers: str | int) -> Scenario:
    """A scenario: one action and its answer."""

    async def scenario(manager: Manager) -> None:
        await manager.send(action, ActionID="ask#1", **headers)
        await manager.until(ActionID="ask#1")

    return scenario


async def nothing(manager: Manager) -> None:
    """Only the login."""


async def up(manager: Manager) -> None:
    """Have a call that stays up."""
    await manager.originate(trunk("90"))
    await manager.until(Event="OriginateResponse", ActionID=FIRST)
    await manager.until(Event="DialEnd", DestUniqueid=UNIQUEID)


async def hang_up(manager: Manager) -> None:
    """End the call that is up."""
    await manager.send("Hangup", ActionID="ask#9", Channel=manager.channel(), Cause=16)
    await manager.ended()


async def channel_id_in_use(manager: Manager) -> None:
    """A second Originate with the ChannelId of a call that is up."""
    await up(manager)
    await manager.originate(trunk("91"), ActionID=SECOND)
    await manager.until(Event="OriginateResponse", ActionID=SECOND)
    await hang_up(manager)


async def core_show_channels(manager: Manager) -> None:
    """The list of channels, with none and with one."""
    await manager.send("CoreShowChannels", ActionID="ask#1")
    await manager.until(Event="CoreShowChannelsComplete", ActionID="ask#1")
    await up(manager)
    await manager.send("CoreShowChannels", ActionID="ask#2")
    await manager.until(Event="CoreShowChannelsComplete", ActionID="ask#2")
    await hang_up(manager)


async def core_status_settings(manager: Manager) -> None:
    """Version and start time."""
    await ask("CoreStatus")(manager)
    await manager.send("CoreSettings", ActionID="ask#2")
    await manager.until(ActionID="ask#2")


async def db_get_found(manager: Manager) -> None:
    """The note that dialer.conf leaves of a call: up, over, and deleted."""
    await up(manager)
    await manager.send("DBGet", ActionID="ask#1", Family="dialer", Key=UNIQUEID)
    await manager.until(Event="DBGetComplete", ActionID="ask#1")
    await hang_up(manager)
    await manager.send("DBGet", ActionID="ask#2", Family="dialer", Key=UNIQUEID)
    await manager.until(Event="DBGetComplete", ActionID="ask#2")
    await manager.send("DBDel", ActionID="ask#3", Family="dialer", Key=UNIQUEID)
    await manager.until(ActionID="ask#3")


async def getvar_dialplan_exists(manager: Manager) -> None:
    """Whether dialer.conf is included: 1 where it is, 0 where it is not."""
    for action_id, context in (("ask#1", "dialer-end"), ("ask#2", "not-included")):
        function = f"DIALPLAN_EXISTS({context},s,1)"
        await manager.send("Getvar", function, ActionID=action_id)
        await manager.until(ActionID=action_id)


QUEUE = ("DIALER_QUEUE=COBRANCA", "DIALER_QUEUE_TIMEOUT=10")
NO_OPERATOR = ("DIALER_QUEUE=BUSY", "DIALER_QUEUE_TIMEOUT=1")
EMPTY = ("DIALER_QUEUE=EMPTY", "DIALER_QUEUE_TIMEOUT=1")
NO_EXTENSION = ("DIALER_CONTEXT=dialer-ura", "DIALER_EXTEN=77", "DIALER_PRIORITY=1")
#: As the worker sends it: a redirected call is not dialed on.
NOWHERE = (
    "DIALER_CONTEXT=dialer-ura",
    "DIALER_EXTEN=s",
    "DIALER_PRIORITY=1",
    "FORWARD_CONTEXT=dialer-nowhere",
)


async def queue_note(manager: Manager) -> None:
    """The note of a call that an operator took from a queue."""
    await call(trunk("60"), *QUEUE)(manager)
    await manager.send("DBGet", ActionID="ask#1", Family="dialer", Key=UNIQUEID)
    await manager.until(Event="DBGetComplete", ActionID="ask#1")
    await manager.send("DBDel", ActionID="ask#2", Family="dialer", Key=UNIQUEID)
    await manager.until(ActionID="ask#2")


class Operators:
    """The lab's telephones op1 to op4 log in and out, with all rights, over another connection."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._n = 0

    async def send(self, action: str, **headers: str | int) -> None:
        """Send one action and wait for the answer."""
        self._n += 1
        await self._manager.send(action, ActionID=f"op#{self._n}", **headers)
        await self._manager.until(ActionID=f"op#{self._n}")

    async def log_in(self, phone: str, name: str, *queues: str) -> None:
        """Add a member to these queues."""
        for queue in queues:
            await self.send("QueueAdd", Queue=queue, Interface=f"PJSIP/{phone}", MemberName=name)

    async def pause(self, phone: str, reason: str = "") -> None:
        """Pause a member in all its queues; without a reason end the pause."""
        paused = "true" if reason else "false"
        await self.send("QueuePause", Interface=f"PJSIP/{phone}", Paused=paused, Reason=reason)

    async def log_out(self, phone: str, *queues: str) -> None:
        """Remove a member from these queues."""
        for queue in queues:
            await self.send("QueueRemove", Queue=queue, Interface=f"PJSIP/{phone}")


def of_operators(part: Callable[[Manager, Operators], Awaitable[None]]) -> Scenario:
    """A scenario in which operators do something besides."""

    async def scenario(manager: Manager) -> None:
        port = manager.port
        other = Manager(*await asyncio.open_connection("127.0.0.1", port), port)
        try:
            await other.login(username="observer")
            await other.until(Event="FullyBooted")
            await part(manager, Operators(other))
        finally:
            other.close()

    return scenario


async def counted(manager: Manager, queue: str, n: int) -> None:
    """How many members of a queue are free, and how many of them do not wrap up."""
    for option in ("free", "ready"):
        function = f"QUEUE_MEMBER({queue},{option})"
        await manager.send("Getvar", function, ActionID=f"{option}#{n}")
        await manager.until(ActionID=f"{option}#{n}")


def in_queue(queue: str) -> tuple[str, str]:
    """The variables of a call that goes to a queue."""
    return f"DIALER_QUEUE={queue}", "DIALER_QUEUE_TIMEOUT=30"


async def agent_pauses_and_wraps_up(manager: Manager, operators: Operators) -> None:
    """An operator logs in, pauses, takes a call, wraps up for 4 s and logs out."""
    await operators.log_in("op1", "Ana", "TEAM1")
    await counted(manager, "TEAM1", 1)
    await operators.pause("op1", "almoço")
    await counted(manager, "TEAM1", 2)
    await operators.pause("op1")
    await call(trunk("20"), *in_queue("TEAM1"))(manager)
    await counted(manager, "TEAM1", 3)
    await asyncio.sleep(5)
    await counted(manager, "TEAM1", 4)
    await operators.log_out("op1", "TEAM1")


async def agent_hangs_up(manager: Manager, operators: Operators) -> None:
    """An operator ends the call after 2 s."""
    await operators.log_in("op3", "Bia", "TEAM1")
    await call(trunk("90"), *in_queue("TEAM1"))(manager)
    await operators.log_out("op3", "TEAM1")


async def agent_does_not_answer(manager: Manager, operators: Operators) -> None:
    """An operator lets it ring twice; the customer gives up during the second time."""
    await operators.log_in("op4", "Caio", "TEAM1")
    await call(trunk("50"), *in_queue("TEAM1"))(manager)
    await operators.log_out("op4", "TEAM1")


async def agent_of_three_queues(manager: Manager, operators: Operators) -> None:
    """An operator of three queues takes a call of one, and pauses in it."""
    queues = ("TEAM1", "TEAM2", "TEAM3")
    await operators.log_in("op2", "Duda", *queues)
    await manager.originate(trunk("30"), *in_queue("TEAM2"))
    await manager.until(Event="AgentConnect", Queue="TEAM2")
    await operators.pause("op2", "banheiro")
    await manager.ended()
    await manager.send("QueueStatus", ActionID="ask#1", Queue="TEAM2")
    await manager.until(Event="QueueStatusComplete", ActionID="ask#1")
    await operators.log_out("op2", *queues)


AMD = ("DIALER_CONTEXT=dialer-ura-amd", "DIALER_EXTEN=s", "DIALER_PRIORITY=1", "LAB_TALK_S=1")

SCENARIOS: dict[str, Scenario] = {
    "fullybooted": nothing,
    "ping": ask("Ping"),
    "answered_far_end_clears": call(trunk("10")),
    "answered_far_end_clears_no_reason": call(trunk("11")),
    "answered_pbx_clears": call(trunk("60")),
    "answered_after_ringing": call(trunk("95")),
    "busy": call(trunk("70")),
    "rejected_403": call(trunk("75")),
    "rejected_603": call(trunk("76")),
    "unknown_number_404": call(trunk("77")),
    "congestion_503": call(trunk("79")),
    "rings_out": call(trunk("81"), Timeout=2_000),
    "local_answered": call(local("10")),
    "local_busy": call(local("70")),
    "local_rings_out": call(local("81"), Timeout=2_000),
    "channel_id_in_use": channel_id_in_use,
    "originate_error": refused(trunk("00"), Context="no-such-context"),
    "originate_error_technology": refused("NOSUCH/1@carrier"),
    "no_channel": refused("PJSIP/123@nosuch"),
    "amd_userevent": call(
        trunk("60"), *AMD, "AMDSTATUS=MACHINE", "LAB_AMD=MACHINE", "DIALER_AGENT=João Silva"
    ),
    "queue_operator_takes_the_call": queue_note,
    "queue_customer_gives_up": call(trunk("10"), *NO_OPERATOR[:1], "DIALER_QUEUE_TIMEOUT=10"),
    "queue_nobody_takes_the_call": call(trunk("60"), *NO_OPERATOR),
    "queue_without_operator": call(trunk("90"), *EMPTY),
    "queue_missing": call(trunk("90"), "DIALER_QUEUE=NOSUCH", "DIALER_QUEUE_TIMEOUT=1"),
    "extension_missing": call(trunk("90"), *NO_EXTENSION),
    "forwarded_before_ringing": call(trunk("85"), *NOWHERE),
    "forwarded_after_ringing": call(trunk("86"), *NOWHERE),
    "forwarded_and_dialed_on": call(f"PJSIP/{NUMBER}85@dials-on", *NOWHERE),
    "core_show_channels": core_show_channels,
    "core_status_settings": core_status_settings,
    "db_get_found": db_get_found,
    "db_get_missing": ask("DBGet", Family="dialer", Key="ASR_TIM:9999"),
    "getvar_dialplan_exists": getvar_dialplan_exists,
}

#: The simulated PBX has no operators of its own.
AGENTS: dict[str, Scenario] = {
    "agent_pauses_and_wraps_up": of_operators(agent_pauses_and_wraps_up),
    "agent_hangs_up": of_operators(agent_hangs_up),
    "agent_does_not_answer": of_operators(agent_does_not_answer),
    "agent_of_three_queues": of_operators(agent_of_three_queues),
}


#: Needs an Asterisk with maxcalls = 1 in asterisk.conf, so it is recorded only if it is named.
async def cut_off_by_maxcalls(manager: Manager) -> None:
    """A second answered call than maxcalls allows: it never enters the dialplan."""
    await manager.originate(trunk("90"), ActionID=SECOND, ChannelId="other")
    await manager.until(Event="OriginateResponse", ActionID=SECOND)
    await manager.until(UserEvent="DialerHanded", Uniqueid="other")
    await call(trunk("90"))(manager)
    await manager.send("Hangup", ActionID="ask#9", Channel="/^PJSIP/", Cause=16)
    await manager.until(Event="Hangup", Uniqueid="other")


ON_DEMAND: dict[str, Scenario] = {"cut_off_by_maxcalls": cut_off_by_maxcalls}


async def record(pbx: str, name: str) -> None:
    """Play one scenario on one Asterisk and write what it said."""
    manager = Manager(*await asyncio.open_connection("127.0.0.1", PORTS[pbx]), PORTS[pbx])
    try:
        if name == "wrong_secret":
            await manager.login("not the secret")
            await manager.until(Response="Error")
        else:
            await manager.login()
            await manager.until(Event="FullyBooted")
            await (SCENARIOS | AGENTS | ON_DEMAND)[name](manager)
        await manager.quiet()
    finally:
        manager.close()
    path = HERE / pbx / f"{name}.ami"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(manager.received)


async def main() -> None:
    """Record what the command line asks for, one scenario after the other."""
    names = [*SCENARIOS, *AGENTS, "wrong_secret"]
    parser = argparse.ArgumentParser(description="Record AMI captures from the lab.")
    parser.add_argument("--pbx", choices=sorted(PORTS), action="append")
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help=", ".join(names))
    asked = parser.parse_args()
    if unknown := sorted(set(asked.scenario) - {*names, *ON_DEMAND}):
        parser.error(f"no such scenario: {', '.join(unknown)}")
    for pbx in asked.pbx or sorted(PORTS):
        for name in asked.scenario or names:
            try:
                await record(pbx, name)
            except TimeoutError as error:
                raise SystemExit(f"{pbx} {name}: not over after {WAIT_S:.0f} s") from error
            print(f"{pbx}/{name}.ami")


if __name__ == "__main__":
    asyncio.run(main())
