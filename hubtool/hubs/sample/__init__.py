"""The embedded sample hub: a few small LoRAs made by code, served on loopback."""
