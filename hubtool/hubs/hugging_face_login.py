"""The token that a login to Hugging Face left on this machine.

`hf auth login` writes it to a file, and that file is read here (huggingface_hub constants.py: HF_TOKEN_PATH, HF_HOME,
XDG_CACHE_HOME). Three kinds of login leave no lasting token there: one by browser, whose token must be renewed every so often,
one of a CI run that is a trusted publisher, and Colab's secrets. Only huggingface_hub itself knows how to ask for those; where
it is installed (the extra `hf`) it is asked, and for those three alone, since it takes a third of a second to load.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from os.path import expandvars
from typing import TYPE_CHECKING

from hubtool.errors import NeedsToken
from hubtool.settings import from_home

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_YES = {"1", "ON", "YES", "TRUE"}
_RENEWED_BY = "huggingface_hub"


@dataclass(frozen=True, slots=True)
class Token:
    """A secret and where it was found."""

    value: str = field(default="", repr=False)
    source: str = ""  # a variable's name, "keyring", "huggingface_hub", or a file


def token_of_login(environment: Mapping[str, str], *, may_ask: bool) -> Token:
    """The token of a login; `may_ask` says whether somebody may be asked for a fresh one over the network.

    Raises:
        NeedsToken: the environment asks for a token that huggingface_hub cannot get.
    """
    if environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _YES:
        return Token()
    path = _path_of_token(environment)
    if may_ask and (why := _reason_to_ask(environment, path)):
        fresh = _asked(why)
        if fresh:
            return Token(fresh, _RENEWED_BY)
    try:
        return Token(path.read_text("utf-8").strip(), str(path))
    except (OSError, UnicodeDecodeError):
        return Token()


def _path_of_token(environment: Mapping[str, str]) -> Path:
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache}/huggingface"
    return from_home(expandvars(environment.get("HF_TOKEN_PATH") or f"{home}/token"))


def _reason_to_ask(environment: Mapping[str, str], path: Path) -> str:
    """What only huggingface_hub can do here, or nothing."""
    if environment.get("HF_OIDC_RESOURCE"):
        return "HF_OIDC_RESOURCE"
    if "google.colab" in sys.modules:
        return "Colab"
    try:
        stored = (path.parent / "stored_tokens").read_text("utf-8", "replace")
    except OSError:
        return ""
    return "a login by browser" if "refresh_token" in stored else ""


def _asked(why: str) -> str:
    """What huggingface_hub says; nothing where it is not installed or knows no token."""
    try:
        library = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
    except ImportError:
        return ""
    named = (getattr(errors, name, None) for name in ("OIDCError", "DeviceCodeError"))
    own = [kind for kind in named if isinstance(kind, type) and issubclass(kind, Exception)]
    kinds: tuple[type[Exception], ...] = (OSError, ValueError, *own)
    try:
        return str(library.get_token() or "")
    except kinds as error:  # its words may quote what it was told
        hint = "See `hf auth whoami`, or set HF_TOKEN."
        raise NeedsToken(f"huggingface_hub has no token ({type(error).__name__}), for {why}.", hint=hint) from None
