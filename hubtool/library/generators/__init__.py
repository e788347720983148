"""One program each that writes into its pictures how they were made."""
