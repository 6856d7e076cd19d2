"""What other people's programs do around the networks, in float64 and by plain loops, written from their descriptions.

Nothing of ortsep is used here. C channels, N samples, F bins, T frames, S stems.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
C128 = npt.NDArray[np.complex128]
Graph = Callable[..., F64]


def _hann(n: int) -> F64:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


def frames_of(x: F64, n_fft: int, hop: int) -> C128:
    """Frames wholly inside [C, N], windowed: [C, F, T]."""
    count = (x.shape[-1] - n_fft) // hop + 1
    cut = np.stack([x[..., t * hop : t * hop + n_fft] for t in range(count)], -2)
    return np.fft.rfft(cut * _hann(n_fft), axis=-1).swapaxes(-1, -2)


def joined(z: C128, n_fft: int, hop: int) -> F64:
    """Least squares inverse of ``frames_of``, [..., N]; zero where no window reaches."""
    count = z.shape[-1]
    waves = np.fft.irfft(z.swapaxes(-1, -2), n_fft, axis=-1) * _hann(n_fft)
    total = np.zeros((*z.shape[:-2], (count - 1) * hop + n_fft))
    weight = np.zeros(total.shape[-1])
    for t in range(count):
        total[..., t * hop : t * hop + n_fft] += waves[..., t, :]
        weight[t * hop : t * hop + n_fft] += _hann(n_fft) ** 2
    return np.where(weight > 1e-11, total / np.maximum(weight, 1e-11), 0.0)


def stft(x: F64, n_fft: int, hop: int) -> C128:
    """torch.stft with center=True, reflect."""
    half = n_fft // 2
    return frames_of(np.pad(x, ((0, 0), (half, half)), mode="reflect"), n_fft, hop)


def istft(z: C128, n_fft: int, hop: int, length: int) -> F64:
    missing = n_fft // 2 + 1 - z.shape[-2]
    full = np.concatenate([z, np.zeros((*z.shape[:-2], missing, z.shape[-1]))], -2)
    return joined(full, n_fft, hop)[..., n_fft // 2 : n_fft // 2 + length]


def parts(z: C128) -> F64:
    """[C, F, T] as [2C, F, T]: L_re, L_im, R_re, R_im."""
    return np.stack([z.real, z.imag], 1).reshape(-1, *z.shape[1:])


def whole(x: F64) -> C128:
    """[..., 2C, F, T] as complex [..., C, F, T]."""
    return x[..., 0::2, :, :] + 1j * x[..., 1::2, :, :]


def uvr_mdx(
    mix: F64, graph: Graph, n_fft: int, dim_f: int, dim_t: int, overlap: float = 0.25, denoise: bool = False
) -> F64:
    """UVR's and python-audio-separator's MDX-Net: the network's stem [2, N], before any compensation."""
    hop, trim = 1024, n_fft // 2
    chunk = hop * (dim_t - 1)
    gen = chunk - 2 * trim
    length = mix.shape[-1]
    padded = np.concatenate([np.zeros((2, trim)), mix, np.zeros((2, gen + trim - length % gen))], 1)
    total, weight = np.zeros_like(padded), np.zeros_like(padded)
    for start in range(0, padded.shape[1], int((1 - overlap) * chunk)):
        end = min(start + chunk, padded.shape[1])
        part = np.zeros((2, chunk))
        part[:, : end - start] = padded[:, start:end]
        x = parts(stft(part, n_fft, hop)[:, :dim_f])
        x[:, :3] = 0
        y = 0.5 * graph(x[None]) - 0.5 * graph(-x[None]) if denoise else graph(x[None])
        wave = istft(whole(y[0]), n_fft, hop, chunk)
        window = np.hanning(end - start)
        total[:, start:end] += wave[:, : end - start] * window
        weight[:, start:end] += window
    with np.errstate(invalid="ignore"):
        return (total / weight)[:, trim:-trim][:, :length]


def apply_model(mix: F64, chunk_of: Graph, segment: int, stems: int, overlap: float = 0.25) -> F64:
    """demucs.apply.apply_model without shifts: triangles, a short last chunk centred in its context: [S, C, N]."""
    length = mix.shape[-1]
    triangle = np.concatenate([np.arange(1, segment // 2 + 1), np.arange(segment - segment // 2, 0, -1)]).astype(float)
    triangle /= triangle.max()
    total, weight = np.zeros((stems, *mix.shape)), np.zeros(length)
    for start in range(0, length, int((1 - overlap) * segment)):
        own = min(segment, length - start)
        before = (segment - own) // 2
        part = np.zeros((len(mix), segment))
        low, high = max(0, start - before), min(length, start - before + segment)
        part[:, low - start + before : high - start + before] = mix[:, low:high]
        wave = chunk_of(part)[..., before : before + own]
        total[..., start : start + own] += triangle[:own] * wave
        weight[start : start + own] += triangle[:own]
    return total / weight


def demucs_api(mix: F64, chunk_of: Graph, segment: int, stems: int) -> F64:
    """demucs.api: the song standardised by its mono mix."""
    mono = mix.mean(0)
    mean, deviation = mono.mean(), mono.std(ddof=1) + 1e-8
    return apply_model((mix - mean) / deviation, chunk_of, segment, stems) * deviation + mean


def demucs_spec(x: F64) -> C128:
    """HTDemucs._spec: [C, N] to [C, 2048, ceil(N / 1024)]."""
    hop, n_fft = 1024, 4096
    count = -(-x.shape[-1] // hop)
    pad = hop // 2 * 3
    x = np.pad(x, ((0, 0), (pad, pad + count * hop - x.shape[-1])), mode="reflect")
    return stft(x, n_fft, hop)[:, :-1, 2 : 2 + count] / np.sqrt(n_fft)


def demucs_ispec(z: C128, length: int) -> F64:
    """HTDemucs._ispec."""
    hop, n_fft = 1024, 4096
    z = np.pad(z, [(0, 0)] * (z.ndim - 2) + [(0, 1), (2, 2)])
    pad = hop // 2 * 3
    frames = -(-length // hop)
    return istft(z * np.sqrt(n_fft), n_fft, hop, frames * hop + 2 * pad)[..., pad : pad + length]


def htdemucs_chunk(part: F64, graph: Graph, *, standardised: bool = False) -> F64:
    """One chunk through the hybrid network ``graph(x, xt)``; ``standardised`` by the host as OpenVINO's plugins do."""
    x, xt = parts(demucs_spec(part)), part
    if not standardised:
        y, yt = graph(x[None], xt[None])
        return demucs_ispec(whole(y[0]), part.shape[-1]) + yt[0]
    mean, deviation = x.mean(), 1e-5 + x.std(ddof=1)
    mean_t, deviation_t = xt.mean(), 1e-5 + xt.std(ddof=1)
    y, yt = graph((x[None] - mean) / deviation, (xt[None] - mean_t) / deviation_t)
    y, yt = y[0] * deviation + mean, yt[0] * deviation_t + mean_t
    return demucs_ispec(whole(y), part.shape[-1]) + yt


def msst_demix(mix: F64, chunk_of: Graph, length: int, parts_of: int, stems: int) -> F64:
    """MSST's demix: reflected borders, linear fades of a tenth, the last chunk reflected or filled with zeros."""
    fade, step = length // 10, length // parts_of
    border = length - step
    samples = mix.shape[-1]
    around = samples > 2 * border and border > 0
    padded = np.pad(mix, ((0, 0), (border, border)), mode="reflect") if around else mix
    total = padded.shape[-1]
    result, weight = np.zeros((stems, *padded.shape)), np.zeros(total)
    for start in range(0, total, step):
        part = padded[:, start : start + length]
        own = part.shape[-1]
        mode = "reflect" if own > length // 2 else "constant"
        wave = chunk_of(np.pad(part, ((0, 0), (0, length - own)), mode=mode))  # type: ignore[call-overload]
        window = np.ones(length)
        if start > 0:
            window[:fade] = np.linspace(0, 1, fade)
        if start + step < total:
            window[-fade:] = np.linspace(1, 0, fade)
        result[..., start : start + own] += wave[..., :own] * window[:own]
        weight[start : start + own] += window[:own]
    with np.errstate(invalid="ignore"):
        out = np.nan_to_num(result / weight)
    return out[..., border:-border] if around else out


def roformer_chunk(part: F64, graph: Graph) -> F64:
    """One chunk through a network that gives complex masks [B, S, 2C, F, T]; DC is zero in the stems."""
    z = stft(part, 2048, 441)
    masked = z * whole(graph(parts(z)[None])[0])
    masked[..., 0, :] = 0
    return istft(masked, 2048, 441, part.shape[-1])


def sherpa_spleeter(mix: F64, graphs: tuple[Graph, Graph]) -> F64:
    """sherpa-onnx's Spleeter: blocks of 512 frames of masked magnitudes, squared and shared out: [2, C, N]."""
    z = frames_of(mix, 4096, 1024)
    count = z.shape[-1]
    magnitude = np.pad(np.abs(z[:, :1024]), ((0, 0), (0, 0), (0, -count % 512)))
    blocks = magnitude.reshape(2, 1024, -1, 512).transpose(2, 0, 1, 3)
    powers = [graph(blocks).transpose(1, 2, 0, 3).reshape(2, 1024, -1)[..., :count] ** 2 for graph in graphs]
    masks = [(power + 5e-11) / (sum(powers) + 1e-10) for power in powers]
    waves = [joined(np.pad(z[:, :1024] * mask, ((0, 0), (0, 1025), (0, 0))), 4096, 1024) for mask in masks]
    return np.stack([np.pad(w, ((0, 0), (0, mix.shape[-1] - w.shape[-1]))) for w in waves])
