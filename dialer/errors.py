"""Errors of the dialer, each with a stable code.

Busy and no answer are outcomes of a call, not errors. The docstring of an exception is its
meaning; its message is one sentence for people, with the cure if there is one.
"""

from __future__ import annotations

from typing import ClassVar, Final

#: Stands between the problems of one element. No name or value in a sentence contains it.
BETWEEN_PROBLEMS: Final = " | "


class DialerError(Exception):
    """Base of all errors of the dialer; `code` is stable, so programs may compare it."""

    code: ClassVar[str] = "dialer_error"


class ConfigError(DialerError):
    """The configuration is wrong; the program cannot start."""

    code = "config_error"


class InvalidRequest(DialerError):
    """An element pushed by Multcall is not readable or breaks a rule of the wire.

    `problems` are the sentences, one for each thing that is wrong; the message is all of them.
    `field` is Multcall's name of the first wrong field, None if the whole element is unreadable.
    `request_id_json` is the element's `IdRequisicao` as JSON text, None if it is missing or not
    valid; a Response needs it.
    """

    code = "invalid_request"

    def __init__(
        self, *problems: str, field: str | None = None, request_id_json: str | None = None
    ) -> None:
        super().__init__(BETWEEN_PROBLEMS.join(problems))
        self.problems = problems
        self.field = field
        self.request_id_json = request_id_json


class StoreUnavailable(DialerError):
    """Redis cannot be reached or refuses to write."""

    code = "store_unavailable"


class StepsStopped(DialerError):
    """Steps of a Redis server no longer run; the process must end."""

    code = "steps_stopped"


class PbxHeld(DialerError):
    """Another worker serves this PBX; this one cannot start."""

    code = "pbx_held"


class Fenced(DialerError):
    """A newer worker has taken over this PBX; this one must end and writes nothing."""

    code = "fenced"


class TaskEnded(DialerError):
    """A background task ended that should run as long as its process; the process must end."""

    code = "task_ended"


class AmiUnavailable(DialerError):
    """The AMI link is down; nothing was sent."""

    code = "ami_unavailable"


class AmiPermissionMissing(AmiUnavailable):
    """The AMI user lacks an action or event class that calls need; nothing was dialed."""

    code = "ami_right_lacking"


class AsteriskTooOld(AmiUnavailable):
    """Asterisk is older than 12 and ignores the ChannelId of a call; nothing was dialed."""

    code = "asterisk_too_old"


class AmiLoginRefused(DialerError):
    """Asterisk refused the AMI login."""

    code = "ami_login_refused"


class AmiLoginInUse(AmiUnavailable):
    """Another session is logged in as our AMI user, and manager.conf allows only one."""

    code = "ami_login_in_use"


class AmiCertificateRejected(DialerError):
    """The certificate at the PBX's TLS port is not trusted; nothing was sent."""

    code = "ami_not_trusted"


class OriginateRefused(DialerError):
    """Asterisk refused the Originate; nothing was dialed."""

    code = "originate_refused"


class OriginateOutcomeUnknown(DialerError):
    """The Originate was sent and no response arrived."""

    code = "originate_outcome_unknown"
