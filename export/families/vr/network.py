"""UVR's two VR networks in torch, as the reference, with the parameter names of their checkpoints.

The old cascade: tsurumeso/vocal-remover 4 as UVR has it (lib_v5/vr_network/nets.py, layers.py): two networks for the
halves of the spectrum, then two for all of it, each hearing what those before it gave. VR 5.1 (nets_new.py,
layers_new.py): halves twice, then all, with an LSTM over the frames in each. From magnitudes [B, 2, F, T] to masks of
the same shape; what counts of them are the frames in the middle.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ortsep.export.families.vr.architecture import Architecture

F = nn.functional
SLOPE = 0.01
"""Of the encoders' LeakyReLU."""


class Layer(nn.Module):
    """A convolution, BatchNorm, and an activation."""

    def __init__(
        self,
        given: int,
        made: int,
        kernel: int = 3,
        stride: int = 1,
        dilation: tuple[int, int] = (1, 1),
        *,
        leaky: bool = False,
        apart: bool = False,
    ) -> None:
        super().__init__()
        padding = tuple(d * (kernel // 2) for d in dilation)
        first = nn.Conv2d(
            given, given if apart else made, kernel, stride, padding, dilation, given if apart else 1, bias=False
        )
        mixing = [nn.Conv2d(given, made, 1, bias=False)] if apart else []
        activation = nn.LeakyReLU(SLOPE) if leaky else nn.ReLU()
        self.conv = nn.Sequential(first, *mixing, nn.BatchNorm2d(made), activation)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class Encoder(nn.Module):
    """Two layers, of which the second halves (old), or the first (5.1)."""

    def __init__(self, given: int, made: int, strides: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = Layer(given, made, 3, strides[0], leaky=True)
        self.conv2 = Layer(made, made, 3, strides[1], leaky=True)


class Decoder(nn.Module):
    """Twice the size, beside what an encoder kept, through one layer, which the editions name differently."""

    def __init__(self, given: int, made: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, Layer(given, made))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        y: Tensor = getattr(self, self.name)(torch.cat([x, skip], 1))
        return y


class Pyramid(nn.Module):
    """Layers of several dilations beside each other, and one that hears the mean over the bins (ASPP)."""

    def __init__(self, given: int, inner: int, made: int, arch: Architecture) -> None:
        super().__init__()
        old = arch.edition == "5"
        self.count = arch.branches
        self.conv1 = nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), Layer(given, inner, 1))
        self.conv2 = Layer(given, inner, 1)
        for k, dilation in enumerate(arch.dilations):
            self.add_module(f"conv{3 + k}", Layer(given, inner, 3, 1, dilation, apart=old))
        for k in range(6, arch.branches + 1):  # the sixth and the seventh are one layer
            again = self.conv6 if k == 7 else Layer(given, inner, 3, 1, arch.dilations[2], apart=True)
            self.add_module(f"conv{k}", again)
        last = Layer(inner * arch.branches, made, 1)
        self.bottleneck: nn.Module = nn.Sequential(last, nn.Dropout2d(0.1)) if old else last

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.conv1(x).expand(-1, -1, x.shape[2], -1)]
        parts += [getattr(self, f"conv{k}")(x) for k in range(2, self.count + 1)]
        y: Tensor = self.bottleneck(torch.cat(parts, 1))
        return y


class OldNet(nn.Module):
    """``BaseASPPNet``: a U-Net of four or five levels."""

    def __init__(self, given: int, channels: int, arch: Architecture) -> None:
        super().__init__()
        sizes = [given, *(channels << level for level in range(arch.levels))]
        self.levels = arch.levels
        for level in range(1, arch.levels + 1):
            self.add_module(f"enc{level}", Encoder(sizes[level - 1], sizes[level], (1, 2)))
            wider = 3 * sizes[level]
            self.add_module(f"dec{level}", Decoder(wider, sizes[level], "conv"))
        self.aspp = Pyramid(sizes[-1], sizes[-1], 2 * sizes[-1], arch)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in range(1, self.levels + 1):
            encoder = getattr(self, f"enc{level}")
            skips.append(encoder.conv1(x))
            x = encoder.conv2(skips[-1])
        x = self.aspp(x)
        for level in range(self.levels, 0, -1):
            x = getattr(self, f"dec{level}")(x, skips.pop())
        return x


class OldCascade(nn.Module):
    """``CascadedASPPNet``."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        c = arch.channels
        self.stg1_low_band_net = OldNet(2, c, arch)
        self.stg1_high_band_net = OldNet(2, c, arch)
        self.stg2_bridge = Layer(2 + c, c // 2, 1)
        self.stg2_full_band_net = OldNet(c // 2, c, arch)
        self.stg3_bridge = Layer(2 + 2 * c, c, 1)
        self.stg3_full_band_net = OldNet(c, 2 * c, arch)
        self.out = nn.Conv2d(2 * c, 2, 1, bias=False)
        self.aux1_out = nn.Conv2d(c, 2, 1, bias=False)
        self.aux2_out = nn.Conv2d(c, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[2] // 2
        first = torch.cat([self.stg1_low_band_net(x[:, :, :half]), self.stg1_high_band_net(x[:, :, half:])], 2)
        second = self.stg2_full_band_net(self.stg2_bridge(torch.cat([x, first], 1)))
        third = self.stg3_full_band_net(self.stg3_bridge(torch.cat([x, first, second], 1)))
        return torch.sigmoid(self.out(third))


class Recurrent(nn.Module):
    """One channel of bins over the frames, through a bidirectional LSTM and a linear layer."""

    def __init__(self, given: int, bins: int, width: int) -> None:
        super().__init__()
        self.conv = Layer(given, 1, 1)
        self.lstm = nn.LSTM(bins, width // 2, bidirectional=True)
        self.dense = nn.Sequential(nn.Linear(width, bins), nn.BatchNorm1d(bins), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        batch, _, bins, frames = x.shape
        y, _ = self.lstm(self.conv(x)[:, 0].permute(2, 0, 1))
        y = self.dense(y.reshape(frames * batch, -1)).reshape(frames, batch, 1, bins)
        return y.permute(1, 2, 3, 0)


class NewNet(nn.Module):
    """``BaseNet``: a U-Net of four levels, whose last but one decoder's result also goes through an LSTM."""

    def __init__(self, given: int, n: int, bins: int, width: int, arch: Architecture) -> None:
        super().__init__()
        sizes = (n, 2 * n, 4 * n, 6 * n, 8 * n)
        self.enc1 = Layer(given, n)
        for level in range(2, 6):
            self.add_module(f"enc{level}", Encoder(sizes[level - 2], sizes[level - 1], (2, 1)))
        self.aspp = Pyramid(8 * n, 8 * n, 8 * n, arch)
        for level in (4, 3, 2):
            self.add_module(f"dec{level}", Decoder(sizes[level - 1] + sizes[level], sizes[level - 1], "conv1"))
        self.lstm_dec2 = Recurrent(2 * n, bins // 2, width)
        self.dec1 = Decoder(3 * n + 1, n, "conv1")

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.enc1(x)]
        for level in range(2, 6):
            encoder = getattr(self, f"enc{level}")
            skips.append(encoder.conv2(encoder.conv1(skips[-1])))
        x = self.aspp(skips.pop())
        for level in (4, 3, 2):
            x = getattr(self, f"dec{level}")(x, skips.pop())
        return self.dec1(torch.cat([x, self.lstm_dec2(x)], 1), skips.pop())


class NewCascade(nn.Module):
    """``CascadedNet``."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        n, half, width = arch.channels, arch.bins // 2, arch.lstm
        self.stg1_low_band_net = nn.Sequential(NewNet(2, n // 2, half, width, arch), Layer(n // 2, n // 4, 1))
        self.stg1_high_band_net = NewNet(2, n // 4, half, width // 2, arch)
        self.stg2_low_band_net = nn.Sequential(NewNet(n // 4 + 2, n, half, width, arch), Layer(n, n // 2, 1))
        self.stg2_high_band_net = NewNet(n // 4 + 2, n // 2, half, width // 2, arch)
        self.stg3_full_band_net = NewNet(3 * n // 4 + 2, n, arch.bins, width, arch)
        self.out = nn.Conv2d(n, 2, 1, bias=False)
        self.aux_out = nn.Conv2d(3 * n // 4, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        low, high = x[:, :, : x.shape[2] // 2], x[:, :, x.shape[2] // 2 :]
        low1, high1 = self.stg1_low_band_net(low), self.stg1_high_band_net(high)
        low2 = self.stg2_low_band_net(torch.cat([low, low1], 1))
        high2 = self.stg2_high_band_net(torch.cat([high, high1], 1))
        first, second = torch.cat([low1, high1], 2), torch.cat([low2, high2], 2)
        return torch.sigmoid(self.out(self.stg3_full_band_net(torch.cat([x, first, second], 1))))


Forward = Callable[[Tensor], Tensor]


def made_network(arch: Architecture) -> nn.Module:
    """The network of an architecture, with torch's own initial parameters, for inference."""
    return (OldCascade(arch) if arch.edition == "5" else NewCascade(arch)).eval()
