"""Training drums_mini, the model that comes with ortsep, from sounds made here. Not part of the package."""
