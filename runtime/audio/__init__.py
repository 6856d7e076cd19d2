"""Songs: opened, decoded, resampled, delivered in blocks."""
