"""BS-RoFormer and Mel-Band RoFormer."""
