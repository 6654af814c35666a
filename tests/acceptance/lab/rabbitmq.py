"""A RabbitMQ of one test: Debian's, in a container, that can be killed and started again.

Its port on 127.0.0.1 stays the same over restarts, and so does what its durable queues hold.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Final

import docker
from docker.models.containers import Container

from tests.acceptance.lab.lab import HERE, answers, wait_for

IMAGE: Final = "dialer-lab-rabbitmq"
LOGIN: Final = "dialer:lab%2Fsecret"  # rabbitmq/rabbitmq.conf; the lab's own, on loopback
PASSWORD: Final = "lab/secret"
VHOST: Final = "calls"


@dataclass(slots=True)
class RabbitMq:
    """One server; `start` builds its image where that is missing."""

    client: docker.DockerClient
    network: str
    port: int = field(default_factory=lambda: free_port())
    _container: Container | None = None

    @property
    def url(self) -> str:
        """As `broker.url` of this machine's programs."""
        return f"amqp://{LOGIN}@127.0.0.1:{self.port}/{VHOST}"

    def start(self) -> None:
        """Start it, again or after `kill`, and wait until it takes connections."""
        if self._container is None:
            self.client.images.build(path=str(HERE / "rabbitmq"), tag=IMAGE)
            self._container = self.client.containers.run(
                IMAGE,
                detach=True,
                hostname="rabbitmq",
                network=self.network,
                ports={"5672/tcp": ("127.0.0.1", self.port)},
            )
        else:
            self._container.start()
        wait_for("RabbitMQ", lambda: answers(self.port, b"AMQP\0\0\x09\x01", b"RabbitMQ"))

    def kill(self) -> None:
        """SIGKILL: nobody is told."""
        self.container.kill()
        self.container.wait()

    def remove(self) -> None:
        """Removes it and all that was in it."""
        if self._container is not None:
            self._container.remove(force=True, v=True)

    def ctl(self, *command: str) -> str:
        """What `rabbitmqctl` says to a command."""
        done = self.container.exec_run(["rabbitmqctl", "--quiet", *command])
        assert isinstance(done.output, bytes)
        assert done.exit_code == 0, done.output
        return done.output.decode()

    @property
    def container(self) -> Container:
        """The container; there is one from the first `start` on."""
        assert self._container is not None
        return self._container


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
