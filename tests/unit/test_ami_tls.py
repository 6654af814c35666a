"""TLS contexts of the AMI link and the sentences for TLS errors."""

from __future__ import annotations

import ssl

import pytest

from dialer.settings.ami_tls import context_of, refusal
from dialer.settings.tables import Pbx


def pbx(**fields: object) -> Pbx:
    table = {"name": "pbx01", "host": "10.0.0.21", "port": 5039, "max_calls": 1, "cps": 1}
    return Pbx.model_validate({**table, "trunks": {"t": "PJSIP/{number}@t"}, **fields})


@pytest.mark.parametrize(("code", "word"), [(10, "certificate has expired"), (9, "not yet valid")])
def test_expired_certificate_is_not_called_untrusted(code: int, word: str) -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, word
    assert refusal(pbx(tls=True), error) == (
        f"the certificate of pbx01 at 10.0.0.21:5039 is not valid now ({word}): "
        "create a new one, or correct the clocks"
    )


def test_tls_link_checks_the_name() -> None:
    assert context_of(pbx()) is None
    context = context_of(pbx(tls=True))
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
