"""Whether an Asterisk is new enough: `ChannelId` of Originate exists from version 12 on.

An older one ignores it, so no event of a call would be recognized. Asterisk 12 came with version 2
of AMI; 11 and older have AMI 1.0 to 1.3. Either is enough to know an old one by.
"""

from __future__ import annotations

import re
from typing import Final

OLDEST: Final = 12
OLDEST_AMI: Final = 2

_NUMBER: Final = re.compile(r"[0-9]{1,4}(?=\.|$)")

#: `22.10.1+dfsg`, `certified/18.9-cert5`, `GIT-18-abc123`, `SVN-branch-11-r4000`; not
#: `GIT-master-abc123`, `SVN-trunk-r4000`, `GIT-9abc123`: they do not say it.
_RELEASE: Final = re.compile(
    r"(?:Asterisk )?(?:certified[/-]|GIT-(?:certified-)?|SVN-branch-)*([0-9]{1,2})(?=[.-]|$)"
)


def is_too_old(*, ami: str, asterisk: str) -> bool:
    """True if Asterisk is older than 12; false also if its words do not tell.

    Args:
        ami: `AMIversion` of CoreSettings, such as `5.0.4`.
        asterisk: `AsteriskVersion` of CoreSettings; a self-built one can be any text.
    """
    found, release = _NUMBER.match(ami), _RELEASE.match(asterisk)
    return (found is not None and int(found[0]) < OLDEST_AMI) or (
        release is not None and int(release[1]) < OLDEST
    )
