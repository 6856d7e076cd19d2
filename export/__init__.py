"""How a graph is made: checkpoints, one file per family, graph building, validation."""
