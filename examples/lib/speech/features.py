"""Log-mel features: the energy of a wave in bands as wide as the ear's, every 10 ms."""

from functools import cache

import torch
from torch import Tensor

from .espeak import RATE

#: Samples from frame to frame, and of a frame's window.
HOP, WINDOW = RATE // 100, 512
#: Bands, and where the lowest begins and the highest ends, in hertz.
BANDS, LOWEST, HIGHEST = 40, 60.0, 8000.0
# Of silence: 16-bit samples know nothing below it.
FLOOR = 1e-7


def log_mel(wave: Tensor) -> Tensor:
    """Natural logarithm of the power in each band, `(bands, frames)`; 1 + samples // 220 frames.

    Args:
        wave: `(samples,)` in -1 to 1.
    """
    window = torch.hann_window(WINDOW, device=wave.device)
    spectrum = torch.stft(
        wave, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True
    )
    power = spectrum.abs() ** 2 / window.sum() ** 2
    return (band_weights() @ power).clamp(min=FLOOR).log()


@cache
def band_weights() -> Tensor:
    """Triangles over the frequencies of a frame, `(bands, 257)`, each 1 at its band's centre."""
    edges = hertz(torch.linspace(*mel(torch.tensor([LOWEST, HIGHEST])).tolist(), BANDS + 2))
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    below, centres, above = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (
        (frequencies - below) / (centres - below),
        (above - frequencies) / (above - centres),
    )
    return torch.minimum(rise, fall).clamp(min=0)


def mel(frequency: Tensor) -> Tensor:
    """O'Shaughnessy's scale of hertz."""
    return 2595 * (1 + frequency / 700).log10()


def hertz(mels: Tensor) -> Tensor:
    """The inverse of `mel`."""
    return 700 * (10 ** (mels / 2595) - 1)
