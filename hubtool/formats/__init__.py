"""Named tensors ⇄ bytes on disk; knows neither what a LoRA is nor torch."""
