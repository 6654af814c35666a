"""A TLS port in front of a server on this machine, and certificates for it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.listener import Listener

OPENSSL_MISSING = None if shutil.which("openssl") else "not installed"


async def certificate(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate for that name, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=test"]
    command += ["-addext", f"subjectAltName={name}"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    return cert, key


@asynccontextmanager
async def tls_in_front_of(target: int, cert: Path, key: Path) -> AsyncIterator[int]:
    """A TLS port that passes everything on to `target` on 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", target)
        listener.also(outer)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    async with Listener(serve, context=context) as listener:
        yield listener.port
