"""Which token goes to which hub.

`HUBTOOL_TOKEN` is for the hub in use, whatever it is; Civitai's own hosts also take the names that other tools use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Civitai answers under all of these and knows one account for them; its storage host b2.civitai.com is not among them.
CIVITAI_HOSTS = ("civitai.com", "www.civitai.com", "civitai.red", "www.civitai.red", "civitai.green", "api.civitai.com")
CIVITAI_ORIGINS = frozenset(f"https://{host}" for host in CIVITAI_HOSTS)
ANY_HUB = ("HUBTOOL_TOKEN",)
CIVITAI = ("HUBTOOL_CIVITAI_TOKEN", "CIVITAI_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY")


def token_for(hub_origin: str, environment: Mapping[str, str] | None = None) -> str:
    """The first token of the environment that is meant for this hub, or nothing.

    >>> token_for("http://127.0.0.1:8080", {"CIVITAI_TOKEN": "a"}), token_for("https://civitai.com", {"CIVITAI_TOKEN": "a"})
    ('', 'a')

    Raises:
        UsageProblem: a token that cannot be one.
    """
    environment = os.environ if environment is None else environment
    names = ANY_HUB + (CIVITAI if hub_origin in CIVITAI_ORIGINS else ())
    for name in names:
        token = environment.get(name, "").strip()
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise UsageProblem(f"{name} holds characters that no token has.", hint="Copy the API key again.")
        if token:
            return token
    return ""
