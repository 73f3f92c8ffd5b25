"""What exists while a compiled program runs: launchers, memory, the cache."""
