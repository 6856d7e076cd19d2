"""Measuring a machine and a model: doctor and bench."""
