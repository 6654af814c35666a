"""Whom a PBX's TLS connection trusts, and what to say where the other end is not trusted."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from dialer.errors import ConfigError
from dialer.settings.tables import Pbx

#: OpenSSL's verdicts that are about time, and about the name (of a host, of an address).
_OVER, _NOT_YET = 10, 9
_WRONG_NAME: Final = frozenset({62, 64})


def context_of(pbx: Pbx) -> ssl.SSLContext | None:
    """What the PBX's certificate is held against; None where its link is without TLS.

    Raises:
        ConfigError: its `tls_ca_file` cannot be used.
    """
    if not pbx.tls:
        return None
    if pbx.tls_ca_file is None:
        return ssl.create_default_context()
    context = _context(pbx.tls_ca_file, f"pbxs[{pbx.name}].tls_ca_file")
    # The same with every Python: 3.13 trusts a certificate in the file that somebody else signed,
    # and refuses what Asterisk's own script ast_tls_cert makes (a CA without key usage).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _context(path: Path, field: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        problem = (
            f"{path} holds no certificate in PEM form; it takes that of the PBX's manager.conf "
            "(tlscertfile), or that of the CA that signed it"
        )
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}; copy the PBX's tlscertfile there"
    raise ConfigError(f"{field}: {problem}")


def refusal(pbx: Pbx, error: ssl.SSLError) -> str:
    """What is wrong with the TLS connection to the PBX, and the cure."""
    where = f"{pbx.host}:{pbx.port}"
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return (
            f"no TLS at {where} ({reason}): port must be that of tlsbindaddr in the PBX's "
            "manager.conf (5039), or leave tls out"
        )
    if error.verify_code in _WRONG_NAME:
        return (
            f"the certificate of {pbx.name} at {where} is for another name: host in dialer.toml "
            f"must be a name that it has, or make one whose subjectAltName has {pbx.host}"
        )
    if error.verify_code in (_OVER, _NOT_YET):
        return (
            f"the certificate of {pbx.name} at {where} is not valid now ({error.verify_message}): "
            "make a new one, or set the clocks right"
        )
    cure = (
        f"copy the PBX's tlscertfile, or its CA's, to {pbx.tls_ca_file}"
        if pbx.tls_ca_file is not None
        else "copy the PBX's tlscertfile beside dialer.toml and name it there in tls_ca_file"
    )
    verdict = f"is not trusted ({error.verify_message}): {cure}"
    return f"the certificate of {pbx.name} at {where} {verdict}"
