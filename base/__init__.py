"""The ground floor: errors, whole files, signals, threads. Knows numpy and the standard library only."""
