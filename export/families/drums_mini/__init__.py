"""drums_mini, the drum model that comes with ortsep."""
