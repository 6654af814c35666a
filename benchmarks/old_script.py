"""The way that scripts dial: a thread per call, with blocking Redis and blocking AMI.

    python -m benchmarks.old_script --redis URL --cell CELL --ami HOST:PORT --user NAME --secret S

It takes the same requests from the same lists and answers them with the same messages as our
dialer, so the same checker judges it. It keeps no state outside its threads: what it does not
survive (a restart of itself, of Redis or of Asterisk, two copies of it) is not measured here.
Each thread logs in to AMI, sends one Originate, and reads events until its call has ended. On
SIGTERM it prints its own CPU time and context switches, which those of ended threads belong to.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import Empty, Queue
from typing import Any, BinaryIO, Final

from redis import Redis

CODE_WITHIN_S: Final = 10.0
AMI_WITHIN_S: Final = 60.0

#: Hangup causes that have a Resultado of their own; others are FAILED.
RESULTS: Final = {16: "NO_ANSWER", 17: "BUSY", 19: "NO_ANSWER", 0: "NO_ANSWER"}


@dataclass(slots=True, kw_only=True)
class Script:
    """What the threads share."""

    redis: Redis
    cell: str
    ami: tuple[str, int]
    user: str
    secret: str
    threads: threading.Semaphore
    codes: dict[str, Queue[object]] = field(default_factory=dict)

    def key(self, function: str) -> str:
        return f"ZancURA2.0-{function}-{self.cell}"

    def serve(self) -> None:
        """Take requests without end; one thread for each, as many as allowed."""
        threading.Thread(target=self._read_codes, daemon=True).start()
        while True:
            popped: Any = self.redis.blpop([self.key("Request")], timeout=1)
            if popped is not None:
                self.threads.acquire()
                request = json.loads(popped[1])
                self.codes[request["IdRequisicao"]] = Queue()
                threading.Thread(target=self._run, args=(request,), daemon=True).start()

    def _read_codes(self) -> None:
        while True:
            popped: Any = self.redis.blpop([self.key("CODLIGACAO")], timeout=1)
            if popped is not None:
                code = json.loads(popped[1])
                if waiting := self.codes.get(code["IdRequisicao"]):
                    waiting.put(code["CodLigacao"])

    def _run(self, request: dict[str, Any]) -> None:
        try:
            self._call(request)
        finally:
            self.threads.release()

    def _call(self, request: dict[str, Any]) -> None:
        name = request["IdRequisicao"]
        self.redis.incr(self.key("Counter"))
        dialed_at = now()
        response: dict[str, Any] = {
            "Resultado": "FAILED",
            "Uniqueid": None,
            "AtendidaEm": None,
            "CausaQ850": None,
        }
        try:
            response |= self._dial(request)
        except OSError as error:
            message = {"Codigo": "ami", "Mensagem": str(error) or "no reply"}
            response |= {"Erro": message}
        ended_at = now()
        code = None
        if response["Uniqueid"] is not None:
            try:
                code = self.codes[name].get(timeout=CODE_WITHIN_S)
            except Empty:
                code = None
            self.redis.decr(self.key("CounterACK"))
        del self.codes[name]
        answer = {
            "IdRequisicao": name,
            "Celula": self.cell,
            "CodLigacao": code,
            **dict.fromkeys(("CausaTexto", "Amd", "Operador", "EsperaSeg", "Erro")),
            "Pbx": "pbx22",
            "Tentativas": 1,
            "CriadaEm": request.get("CriadaEm"),
            "DiscadaEm": stamp(dialed_at),
            "EncerradaEm": stamp(ended_at),
            "DuracaoSeg": seconds(dialed_at, ended_at),
            "FaladoSeg": None,
            "Dados": request.get("Dados"),
            **response,
        }
        if answer["AtendidaEm"] is not None:
            answer["FaladoSeg"] = seconds(answer["AtendidaEm"], ended_at)
            answer["AtendidaEm"] = stamp(answer["AtendidaEm"])
        self.redis.rpush(self.key("Response"), json.dumps(answer))
        self.redis.decr(self.key("Counter"))

    def _dial(self, request: dict[str, Any]) -> dict[str, Any]:
        """Dial the call and follow it to its end. Raises OSError."""
        channel = f"old-{request['IdRequisicao']}"
        with socket.create_connection(self.ami, timeout=AMI_WITHIN_S) as link:
            stream = link.makefile("rb")
            send(link, Action="Login", Username=self.user, Secret=self.secret, Events="call")
            send(
                link,
                Action="Originate",
                ActionID=channel,
                ChannelId=channel,
                Channel=f"PJSIP/{request['Telefone']}@carrier",
                Account=request["IdRequisicao"],
                Context="dialer-enter",
                Exten="s",
                Priority="1",
                Timeout="30000",
                Async="true",
                Variable="DIALER_CONTEXT=dialer-ura,DIALER_EXTEN=s,DIALER_PRIORITY=1",
            )
            return self._follow(stream, channel, request)

    def _follow(self, stream: BinaryIO, channel: str, request: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        cause = None
        while True:
            message = read(stream)
            if message.get("ActionID") == channel and message.get("Response") == "Success":
                if "Event" not in message:
                    self._ack(request, channel)
                    found["Uniqueid"] = channel
                else:
                    found["AtendidaEm"] = now()
                    found["Resultado"] = "ANSWERED"
            elif message.get("ActionID") == channel and message.get("Response") == "Failure":
                return {**found, "Resultado": RESULTS.get(cause or 0, "FAILED"), "CausaQ850": cause}
            elif message.get("ActionID") == channel and message.get("Response") == "Error":
                raise OSError(message.get("Message", "refused"))
            elif message.get("Event") == "Hangup" and message.get("Uniqueid") == channel:
                cause = int(message["Cause"])
                if "AtendidaEm" in found:
                    return {**found, "CausaQ850": cause}

    def _ack(self, request: dict[str, Any], uniqueid: str) -> None:
        ack = {
            "IdRequisicao": request["IdRequisicao"],
            "Celula": self.cell,
            "Pbx": "pbx22",
            "Uniqueid": uniqueid,
            "Em": stamp(now()),
            "Dados": request.get("Dados"),
        }
        self.redis.incr(self.key("CounterACK"))
        self.redis.rpush(self.key("ACK"), json.dumps(ack))


def send(link: socket.socket, **fields: str) -> None:
    """Send one AMI action."""
    link.sendall("".join(f"{k}: {v}\r\n" for k, v in fields.items()).encode() + b"\r\n")


def read(stream: BinaryIO) -> dict[str, str]:
    """Read one AMI message. Raises OSError at the end."""
    message: dict[str, str] = {}
    while line := stream.readline():
        text = line.decode().rstrip("\r\n")
        if not text:
            return message
        name, _, value = text.partition(": ")
        message[name] = value
    raise OSError("Asterisk closed the connection")


def now() -> datetime:
    """Return the time, to the millisecond, as it stands in the messages."""
    at = datetime.now(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def stamp(at: datetime) -> str:
    """Return the time as the wire has it."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(start: datetime, end: datetime) -> float:
    """Return the seconds between, never negative."""
    return max(0.0, (end - start).total_seconds())


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("redis", "cell", "ami", "user", "secret"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threads", type=int, default=400, help="calls at once")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.stack_size(256 * 1024)
    host, _, port = asked.ami.rpartition(":")
    script = Script(
        redis=Redis.from_url(asked.redis),
        cell=asked.cell,
        ami=(host, int(port)),
        user=asked.user,
        secret=asked.secret,
        threads=threading.Semaphore(asked.threads),
    )
    try:
        script.serve()
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        switches = used.ru_nvcsw + used.ru_nivcsw
        sys.stdout.write(f"{used.ru_utime + used.ru_stime} {switches}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
