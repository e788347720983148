"""Which token goes to which hub, and where it comes from: the environment, then what `hubtool login` stored.

`HUBTOOL_TOKEN` is for the hub in use, whatever it is; Civitai's and Hugging Face's own hosts also take the names that other
tools use. A stored token is in the system's keyring where the package `keyring` is installed, else in a file that only its
owner can read. Every token is bound to one hub and shown nowhere.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Protocol, cast

from hubtool.errors import StorageProblem, UsageProblem
from hubtool.formats.atomic import reraise
from hubtool.hubs.addresses import Reach, reach_of_host
from hubtool.hubs.hugging_face_login import Token, token_of_login
from hubtool.hubs.places import CIVITAI_ORIGINS, repository_site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ANY_HUB = ("HUBTOOL_TOKEN",)
CIVITAI = ("HUBTOOL_CIVITAI_TOKEN", "CIVITAI_TOKEN", "CIVITAI_API_TOKEN", "CIVITAI_API_KEY")
HUGGING_FACE = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SERVICE = "hubtool"


class _Keyring(Protocol):
    def get_password(self, service: str, name: str) -> str | None: ...

    def set_password(self, service: str, name: str, secret: str) -> None: ...

    def delete_password(self, service: str, name: str) -> None: ...


def token_for(hub_origin: str, environment: Mapping[str, str] | None = None, *, in_use: bool = True) -> str:
    """The first token of the environment that is meant for this hub, or nothing.

    >>> token_for("http://127.0.0.1:8080", {"CIVITAI_TOKEN": "a"}), token_for("https://civitai.com", {"CIVITAI_TOKEN": "a"})
    ('', 'a')

    Raises:
        UsageProblem: a token that cannot be one.
    """
    return _from_environment(hub_origin, os.environ if environment is None else environment, in_use=in_use).value


def token_in_force(hub_origin: str, store: Store, *, in_use: bool = True, may_ask: bool = True) -> Token:
    """The token for a hub: of the environment, else the stored one, else that of a login to Hugging Face.

    `in_use` says that it is the hub that HUBTOOL_TOKEN is for, `may_ask` whether a login may be renewed over the network.

    Raises:
        UsageProblem: a token that cannot be one.
        StorageProblem: the stored tokens cannot be read.
    """
    found = _from_environment(hub_origin, os.environ, in_use=in_use)
    if not found.value:
        found = store.read(key_of(hub_origin))
    if not found.value and repository_site(hub_origin) == "huggingface":
        found = token_of_login(os.environ, may_ask=may_ask)
        found = Token(checked(found.value, found.source), found.source) if found.value else Token()
    return found


def checked(token: str, source: str) -> str:
    """The token without blanks around it.

    Raises:
        UsageProblem: it cannot be one.
    """
    token = token.strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageProblem(f"{source} holds characters that no token has.", hint="Copy the API key again.")
    return token


def refuse_plain(hub_origin: str, source: str) -> None:
    """Raise if a hub would hear a token over plain http from beyond this network, where everybody in between hears it too.

    Raises:
        UsageProblem: it would.
    """
    scheme, _, host = hub_origin.partition("://")
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if scheme == "http" and reach_of_host(name) is Reach.PUBLIC:
        hint = "Give the hub's https address, or do without the token."
        raise UsageProblem(f"{source} is not sent over plain http to {name}.", hint=hint)


def key_of(hub_origin: str) -> str:
    """Under what the token of a hub is stored: Civitai's hosts share one."""
    return "civitai" if hub_origin in CIVITAI_ORIGINS else repository_site(hub_origin) or hub_origin


class Store:
    """The stored tokens, one a hub."""

    def __init__(self, path: Path) -> None:
        """`path` is the file that holds them, or says which of them the keyring holds."""
        self.path = path

    def read(self, key: str) -> Token:
        """The token of a hub; empty if none is stored.

        Raises:
            StorageProblem: the file cannot be read.
        """
        entry = self._table().get(key)
        if entry is None:
            return Token()
        if entry:
            return Token(entry, str(self.path))
        ring = _keyring()
        with _keyring_trouble():
            return Token((ring.get_password(_SERVICE, key) if ring else None) or "", "keyring")

    def write(self, key: str, token: str) -> str:
        """Store a token; where it went.

        Raises:
            StorageProblem: the file cannot be written, or the keyring refused.
        """
        table = self._table()
        ring = _keyring()
        if ring is not None:
            with _keyring_trouble():
                ring.set_password(_SERVICE, key, token)
        self._save(table | {key: "" if ring else token})
        return "keyring" if ring else str(self.path)

    def remove(self, key: str) -> bool:
        """Forget a token; whether there was one.

        Raises:
            StorageProblem: as `write`.
        """
        table = self._table()
        if key not in table:
            return False
        ring = _keyring()
        if not table[key] and ring is not None:
            with _keyring_trouble():
                ring.delete_password(_SERVICE, key)
        self._save({name: entry for name, entry in table.items() if name != key})
        return True

    def _table(self) -> dict[str, str]:
        try:
            table = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageProblem(self.path, error.strerror or "cannot be read") from error
        except ValueError:  # its text is not quoted: it holds secrets
            raise StorageProblem(self.path, "is damaged; delete it and log in again") from None
        entries = table.items() if isinstance(table, dict) else ()
        return {str(name): entry for name, entry in entries if isinstance(entry, str)}

    def _save(self, table: Mapping[str, str]) -> None:
        """Replace the file as a whole; it is never readable by others, not even for a moment."""
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(table, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            reraise(error, self.path)


def _from_environment(hub_origin: str, environment: Mapping[str, str], *, in_use: bool) -> Token:
    names: tuple[str, ...] = ANY_HUB if in_use else ()
    if hub_origin in CIVITAI_ORIGINS:
        names += CIVITAI
    elif repository_site(hub_origin) == "huggingface":
        names += HUGGING_FACE
    for name in names:
        token = checked(environment.get(name, ""), name)
        if token:
            return Token(token, name)
    return Token()


def _keyring() -> _Keyring | None:
    """The system's keyring, where the package is installed and has something to keep secrets in."""
    try:
        module = importlib.import_module("keyring")
    except ImportError:
        return None
    usable = getattr(module.get_keyring(), "priority", 0) > 0
    return cast("_Keyring", module) if usable else None


@contextlib.contextmanager
def _keyring_trouble() -> Iterator[None]:
    """Turn the keyring's exceptions into ours, without their words, which may quote what was stored."""
    try:
        errors = importlib.import_module("keyring.errors")
    except ImportError:
        yield
        return
    try:
        yield
    except errors.KeyringError as error:
        raise StorageProblem("The keyring", f"refused ({type(error).__name__})") from None
