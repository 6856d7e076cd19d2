"""Write data/spleeter_reference.npz: what spleeter 2.4.2 itself makes of seeded weights and a seeded signal.

It needs an environment of its own, since that package pins TensorFlow 2.12 and numpy 1 (Python 3.8 to 3.11):

    python3.11 -m venv /tmp/spleeter && /tmp/spleeter/bin/pip install spleeter==2.4.2
    /tmp/spleeter/bin/python tests/parity/make_spleeter_reference.py

The variables, their names and shapes are those that spleeter's own graph declares; TensorFlow's Saver writes them where
its model provider finds them, and its Separator loads them and separates, as it would the official ones.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from spleeter.model import EstimatorSpecBuilder
from spleeter.separator import Separator
from spleeter.utils.configuration import load_configuration
from spleeter_inputs import MODELS, excerpts, music, seeded


def write_model(name: str, folder: Path) -> None:
    """A checkpoint of seeded variables for spleeter's model ``name``."""
    params = load_configuration(f"spleeter:{name}")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        waveform = tf.compat.v1.placeholder(tf.float32, (None, 2))
        _ = EstimatorSpecBuilder({"waveform": waveform}, params).outputs
        step = tf.compat.v1.train.get_or_create_global_step()
        for variable in tf.compat.v1.global_variables():
            if variable is not step:
                value = seeded(variable.op.name, tuple(variable.shape.as_list()))
                variable.load(value, session)
        session.run(step.initializer)
        folder.mkdir()
        tf.compat.v1.train.Saver().save(session, str(folder / "model"))
    (folder / ".probe").write_text("OK")


def write_small(prefix: Path) -> None:
    """A small checkpoint of numbered vectors, for tests of the reader: enough for several restarts of its index."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for k in range(40):
            tf.compat.v1.get_variable(f"layer_{k}/kernel", initializer=np.arange(k, dtype=np.float32).reshape(1, k))
        tf.compat.v1.get_variable("global_step", initializer=np.int64(1234567890123))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(prefix), write_meta_graph=False)
    (prefix.parent / "checkpoint").unlink()


def main() -> None:
    write_small(Path(__file__).parents[1] / "data" / "tf_bundle" / "model")
    results = {}
    mix = music()
    with tempfile.TemporaryDirectory() as home:
        for name in MODELS:
            config = load_configuration(f"spleeter:{name}")
            folder = Path(home) / name
            config["model_dir"] = str(folder)
            write_model(name, folder)
            separator = Separator(f"spleeter:{name}", multiprocess=False)
            separator._params["model_dir"] = str(folder)
            stems = separator.separate(mix.T)
            whole = np.stack([stems[stem].T for stem in config["instrument_list"]])
            assert whole.shape == (MODELS[name], *mix.shape)
            results[name] = excerpts(whole).astype(np.float32)
            print(name, config["instrument_list"], np.sqrt((whole**2).mean((1, 2))))
    target = Path(__file__).parent / "data" / "spleeter_reference.npz"
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **results)
    print(target, target.stat().st_size)


if __name__ == "__main__":
    main()
