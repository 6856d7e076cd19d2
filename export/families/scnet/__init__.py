"""SCNet: the sparse compression network."""
