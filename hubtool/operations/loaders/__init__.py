"""What each program loads: one TOML each, read by `hubtool.operations.loader`; docs/check.md explains the rows."""
