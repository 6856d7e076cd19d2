"""Store what moises-light 0.1.3 itself answers, for the tests of its generation: run where that version is installed.

    python tests/parity/make_moises_reference.py

Writes data/moises_legacy.npz: for each preset the stems [4, 2, N] of a seeded clip, in float64 throughout, stored as
float32, with random_state of seed 0. Needs torch, ortsep and moises-light 0.1.3 (0.1.0 has the same network).
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from moises_light import MoisesLight, configs

from ortsep.export.moises_architecture import of_card, presets, random_state

SAMPLES = 1000


def seeded_clip() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((2, SAMPLES))
    return (0.1 * (noise + np.cumsum(noise, axis=1) / 8)).astype(np.float32)


def main() -> None:
    assert version("moises-light") in ("0.1.0", "0.1.1", "0.1.2", "0.1.3"), version("moises-light")
    stems = {}
    for name, config in configs.items():
        network = MoisesLight(**config).eval()
        arrays = random_state(of_card(presets()[f"moises_light:{name}"], new=False), 0)
        missing, surplus = network.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()}, strict=False)
        learned = {k for k, _ in network.named_parameters()} | {k for k in network.state_dict() if ".running_" in k}
        assert not surplus and not learned & set(missing)
        for module in network.modules():
            if hasattr(module, "flash"):
                module.flash = False
        with torch.inference_mode():
            stems[name] = network.double()(torch.from_numpy(seeded_clip()).double()[None])[0].float().numpy()
        print(name, sum(p.numel() for p in network.parameters()), float(np.std(stems[name])))
    np.savez_compressed(Path(__file__).parent / "data" / "moises_legacy.npz", **stems)


if __name__ == "__main__":
    main()
