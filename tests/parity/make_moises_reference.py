"""Store what moises-light 0.1.3 itself answers, for the tests of its generation: run where that version is installed.

    python tests/parity/make_moises_reference.py

It writes data/moises_legacy.npz: for each preset the stems [4, 2, N] of a seeded clip, in float64 throughout, stored as
float32, with seeded parameters. Needs torch and moises-light 0.1.3 (0.1.0 has the same network).
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from moises_inputs import seeded_clip, seeded_state
from moises_light import MoisesLight, configs

SAMPLES = 1000


def main() -> None:
    assert version("moises-light") in ("0.1.0", "0.1.1", "0.1.2", "0.1.3"), version("moises-light")
    stems = {}
    for name, config in configs.items():
        network = MoisesLight(**config).eval()
        own = {k: tuple(v.shape) for k, v in network.state_dict().items()}
        spare = ("stft_window", "freq_pad")
        shapes = {k: s for k, s in own.items() if k not in spare and not k.endswith("num_batches_tracked")}
        state = {k: torch.from_numpy(v) for k, v in seeded_state(shapes, growth=4.0).items()}
        network.load_state_dict(state, strict=False)
        for module in network.modules():
            if hasattr(module, "flash"):
                module.flash = False
        with torch.inference_mode():
            stems[name] = network.double()(torch.from_numpy(seeded_clip(SAMPLES)).double()[None])[0].float().numpy()
        print(name, sum(p.numel() for p in network.parameters()), float(np.std(stems[name])))
    np.savez_compressed(Path(__file__).parent / "data" / "moises_legacy.npz", **stems)


if __name__ == "__main__":
    main()
