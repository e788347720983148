"""Keys ⇄ addresses, as data; knows neither tensors nor files nor torch."""
