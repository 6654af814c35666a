"""TLS context for AMI and messages for TLS errors."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from dialer.errors import ConfigError
from dialer.settings.tables import Pbx

#: OpenSSL's verification errors about the validity period, and about the host name or address.
_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_NAME: Final = frozenset({62, 64})


def context_of(pbx: Pbx) -> ssl.SSLContext | None:
    """Return the TLS context that verifies the PBX's certificate; None if the link has no TLS.

    Raises:
        ConfigError: `tls_ca_file` cannot be used.
    """
    if not pbx.tls:
        return None
    if pbx.tls_ca_file is None:
        return ssl.create_default_context()
    context = _context(pbx.tls_ca_file, f"pbxs[{pbx.name}].tls_ca_file")
    # Same behaviour with every Python: 3.13 trusts a certificate in the file that an unknown CA
    # signed, and refuses those of Asterisk's script ast_tls_cert (its CA has no key usage).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _context(path: Path, field: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        problem = (
            f"{path} contains no certificate in PEM form; it takes the one from the PBX's "
            "manager.conf (tlscertfile), or that of the CA that signed it"
        )
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}; copy the PBX's tlscertfile there"
    raise ConfigError(f"{field}: {problem}")


def refusal(pbx: Pbx, error: ssl.SSLError) -> str:
    """Describe a TLS error of the connection to the PBX, with the cure."""
    address = f"{pbx.host}:{pbx.port}"
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return (
            f"no TLS at {address} ({reason}): port must be that of tlsbindaddr in the PBX's "
            "manager.conf (5039), or leave tls out"
        )
    if error.verify_code in _WRONG_NAME:
        return (
            f"the certificate of {pbx.name} at {address} is for another name: set host in "
            "dialer.toml to a name in the certificate, or create a certificate whose "
            f"subjectAltName contains {pbx.host}"
        )
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return (
            f"the certificate of {pbx.name} at {address} is not valid now "
            f"({error.verify_message}): create a new one, or correct the clocks"
        )
    cure = (
        f"copy the PBX's tlscertfile, or its CA's, to {pbx.tls_ca_file}"
        if pbx.tls_ca_file is not None
        else "copy the PBX's tlscertfile next to dialer.toml and set tls_ca_file to it"
    )
    problem = f"is not trusted ({error.verify_message}): {cure}"
    return f"the certificate of {pbx.name} at {address} {problem}"
