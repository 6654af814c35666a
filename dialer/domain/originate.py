"""Escaping of values for the header lines of an AMI Originate.

No value can end its line or add a variable. Facts from Asterisk 16 and 22 (main/manager.c): an
AMI line is cut at 1,024 bytes, line end included. The value of `Variable` is split at commas by
the rules of application arguments: a backslash makes the next character plain, quotes are
removed, and commas inside brackets do not split.
"""

from __future__ import annotations

import re
from typing import Final

#: Longest AMI header line that we send, without its line end, in bytes.
AMI_LINE_MAX_BYTES: Final = 1000

#: A context that exists nowhere.
NOWHERE: Final = "dialer-nowhere"

#: Channel variables of every call. A carrier that redirects a call (SIP 302) or transfers it
#: (REFER) names an extension. Asterisk 16 and 22 dial it in these contexts, or, without them, in
#: the context of the trunk's endpoint. There nothing is dialed.
CARRIER_DIALS_NOTHING: Final = (
    ("FORWARD_CONTEXT", NOWHERE),
    ("TRANSFER_CONTEXT", NOWHERE),
)

#: Channel variable with the call id, `<cell>:<request id>`. The underscores make Asterisk copy it
#: to the channels that this one dials; the dialplan reads it as DIALER_CALL_ID.
CALL_ID_VARIABLE: Final = "__DIALER_CALL_ID"

_SPECIAL: Final = re.compile(r'([\\",()\[\]])')


def dial_string(template: str, number: str) -> str:
    """Return the Channel of an Originate: the trunk's template with the number in it.

    The number must be validated (digits, optional leading `+`), so that it cannot choose a
    technology or end the string.
    """
    return template.replace("{number}", number)


def variable_line(name: str, value: str) -> str:
    """Return `NAME=value` for a Variable header, escaped so that Asterisk gets the same value."""
    return f"{name}=" + _SPECIAL.sub(r"\\\1", value)


def fits_ami_line(name: str, value: str) -> bool:
    """True if the variable, escaped, fits one AMI line."""
    return len(f"Variable: {variable_line(name, value)}".encode()) <= AMI_LINE_MAX_BYTES
