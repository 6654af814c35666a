"""What can go wrong, each with a stable code.

Busy, no answer and the like are outcomes of a call, not errors. An exception's
docstring says what it means; its text is one sentence for the person who reads
it, with the cure where there is one.
"""

from __future__ import annotations

from typing import ClassVar


class DialerError(Exception):
    """Any error of this system; `code` is stable and may be matched on."""

    code: ClassVar[str] = "dialer_error"


class ConfigError(DialerError):
    """The configuration is wrong; the program cannot start."""

    code = "config_error"


class InvalidRequest(DialerError):
    """An element that Multcall pushed cannot be read or breaks a rule of the wire.

    `field` is Multcall's name of the offending field, None where the element as a
    whole is unreadable. `request_id_json` is the element's `IdRequisicao` as JSON
    text where it could be read, so that a Response can be addressed.
    """

    code = "invalid_request"

    def __init__(
        self, message: str, *, field: str | None = None, request_id_json: str | None = None
    ) -> None:
        super().__init__(message)
        self.field = field
        self.request_id_json = request_id_json


class StoreUnavailable(DialerError):
    """Redis cannot be reached or refuses to write."""

    code = "store_unavailable"


class StepsStopped(DialerError):
    """Steps of a Redis server no longer run; the process must end."""

    code = "steps_stopped"


class AmiUnavailable(DialerError):
    """The AMI link is down; nothing was sent."""

    code = "ami_unavailable"


class AmiPermissionMissing(AmiUnavailable):
    """The AMI user may not do, or is not told, what calls take; nothing was dialed."""

    code = "ami_right_lacking"


class AmiLoginRefused(DialerError):
    """Asterisk answered the login with no."""

    code = "ami_login_refused"


class AmiCertificateRejected(DialerError):
    """What answers at the PBX's TLS port is not the PBX that we trust; nothing was sent."""

    code = "ami_not_trusted"


class OriginateRefused(DialerError):
    """Asterisk answered the Originate with no: nothing was dialed."""

    code = "originate_refused"


class OriginateOutcomeUnknown(DialerError):
    """The Originate was sent and Asterisk's word on it never came."""

    code = "originate_outcome_unknown"
