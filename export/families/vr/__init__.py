"""UVR's VR networks: the old cascade (HP, SP, MGM) and that of VR 5.1 (De-Echo, De-Noise, De-Reverb, BVE)."""
