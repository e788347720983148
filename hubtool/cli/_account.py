"""How the commands about accounts read a key and show whose it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hubtool.hubs.accounts import Account


def read_token() -> str:
    """The key that a person types unseen, or the first line of stdin."""
    if sys.stdin.isatty():
        return str(click.prompt("API key", hide_input=True, err=True, default="", show_default=False))
    return sys.stdin.readline(10_000).strip()


def account_text(account: Account) -> str:
    """One line for people."""
    if not account.source and not account.name:
        return f"{account.hub}: not logged in."
    if not account.checked:
        return f"{account.hub}: a key from {account.source}; the hub was not asked whose it is."
    tier = f" ({account.tier})" if account.tier else ""
    by = f", by the key from {account.source}" if account.source else ""
    return f"{account.hub}: {account.name}{tier}{by}."
