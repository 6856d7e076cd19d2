"""The command line's commands, one module each, imported when its command runs."""
