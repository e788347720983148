"""One toolchain each: how it spells prefixes, module paths and parameter suffixes."""
