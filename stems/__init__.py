"""What comes out: the manifest, masks and Wiener filters, residual and mixes, files."""
