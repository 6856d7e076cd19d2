"""MDX23C: TFC-TDF networks, version 3."""
