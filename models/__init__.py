"""What a model is: its spec, its catalogue card, its place on disk. Standard library only."""
