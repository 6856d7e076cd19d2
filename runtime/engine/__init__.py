"""The separation itself: STFT, chunks, the network as one function, the loops."""
