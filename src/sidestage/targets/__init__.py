"""Finding a target and starting an agent beside it."""
