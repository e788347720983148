"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(path_type=Path)  # existence is checked by the reader, which says more than click does

files_argument = click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
file_argument = click.argument("file", type=FILE, metavar="FILE")
force_option = click.option("--force", is_flag=True, help="Replace an output that exists.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")
