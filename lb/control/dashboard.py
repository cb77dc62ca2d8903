"""The dashboard: one page without anything from outside."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

from aiohttp import web


def dashboard_page(status: int = 200) -> web.Response:
    """The page, with a policy that lets the browser run nothing but what stands in it."""
    html, policy = _page()
    headers = {"Content-Security-Policy": policy}
    return web.Response(text=html, status=status, content_type="text/html", headers=headers)


@cache
def _page() -> tuple[str, str]:
    html = files("lb.control").joinpath("dashboard.html").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {_hash(html, 'script')}; style-src {_hash(html, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _hash(html: str, tag: str) -> str:
    """What a Content-Security-Policy calls an element's content by (CSP level 3, section 2.3.1)."""
    match = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    assert match is not None, f"the dashboard has no <{tag}>"
    return f"'sha256-{b64encode(sha256(match[1].encode()).digest()).decode()}'"
