"""HTML from templates, in the language of the visitor. Everything is escaped by default."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dialer.domain.request import mask
from dialer.domain.roles import Role
from dialer.settings.typed import shown, value_words
from dialer.web import words
from dialer.web.site import Visitor, visitor_of
from dialer.web.texts import LANGUAGES, NOTHING, Texts, texts

#: Nothing is loaded from elsewhere, no script or style is in a page, nobody may frame it.
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@cache
def environment(language: str) -> Environment:
    """Return the templates of a language."""
    of_language = texts(language)
    made = Environment(
        loader=PackageLoader("dialer.web"),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.install_gettext_translations(  # type: ignore[attr-defined]  # of the extension
        of_language.translations, newstyle=True
    )
    made.globals |= {"texts": of_language, "words": words, "LANGUAGES": LANGUAGES, "Role": Role}
    made.globals |= {"NOTHING": NOTHING}
    made.filters |= {
        "number": of_language.number,
        "percent": of_language.percent,
        "delay": of_language.delay,
        "said": lambda sentence: _said(of_language, sentence),
        "duration": of_language.duration,
        "time": of_language.time,
        "moment": of_language.moment,
        "masked": mask,
        "knob": shown,
        "value": lambda value, name: value_words(name, value),
    }
    return made


def _said(of_language: Texts, sentence: str) -> Markup:
    """Return a sentence of the programs; one that is only known in English is marked so."""
    found = of_language.say(sentence)
    return Markup('<span lang="en">{}</span>').format(sentence) if found is None else escape(found)


def rendered(template: str, of_language: Texts, context: Mapping[str, Any]) -> str:
    """Return a template as text."""
    return environment(of_language.name).get_template(template).render(context)


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Return a page. The template gets the visitor, the path and the token for forms too."""
    visitor = visitor_of(request)
    html = rendered(template, visitor.texts, about(visitor, request) | context)
    return HTMLResponse(html, status_code=status)


def about(visitor: Visitor, request: Request) -> dict[str, Any]:
    """Return what every page needs to know."""
    session = visitor.session
    return {
        "visitor": visitor,
        "path": request.scope["path"],
        "query": request.url.query,
        "csrf": session.csrf if session is not None else "",
    }


def message_page(request: Request, text: str, *, status: int) -> HTMLResponse:
    """Return a page with one sentence. `text` is English; it is translated if it is known."""
    return page(request, "message.html", status=status, text=text, code=status)
