"""The HTML page of a song, and its pictures."""
