"""One UI each: where its LoRAs live and which sidecars it reads."""
