"""A folder a family: how its checkpoints are read and its graphs built."""
