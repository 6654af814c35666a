"""Ways back that forms and addresses name."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.responses import RedirectResponse

from dialer.web.paths import PATH_MAX, safe_path

SITE = "https://dialer.test/login"

#: What an attacker mixes, and any other text.
HOSTILE = st.text(alphabet="/\\.:@?#%\r\n\t\0 ehvil0d2Fa\u2028\ud800") | st.text()


@pytest.mark.parametrize(
    "path", ["/", "/calls?id=a/b&cell=x%20y", "/dead#end", "/cells/São Paulo", "/a/../b"]
)
def test_path_of_this_site_stays(path: str) -> None:
    assert safe_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "", "calls", "https://evil.test/", "//evil.test", "/a//b", "/\\evil.test", "\\\\evil.test",
        "/\t/evil.test", "/a\r\nSet-Cookie: a=b", " /a", "/\x7f", "/\u2028", "/\ud800",
        "javascript:alert(1)", "/" + "a" * PATH_MAX,
    ],
)  # fmt: skip
def test_other_text_becomes_the_default(path: str) -> None:
    assert safe_path(path) == "/"
    assert safe_path(path, "/dead") == "/dead"


@given(HOSTILE)
@example("/.//evil.test")
@example("/\n/evil.test")
def test_redirect_stays_on_this_site(text: str) -> None:
    location = RedirectResponse(safe_path(text)).headers["location"]

    # As a browser reads it: WHATWG URL drops tabs and line ends, and reads \ as /.
    read = "".join(c for c in location if c not in "\t\r\n").replace("\\", "/")
    there = urlsplit(urljoin(SITE, read))
    assert (there.scheme, there.netloc) == ("https", "dialer.test")
    assert location.isascii()
    assert location.isprintable()
