"""From text masks to grey images that look like crops of scenes."""

import torch
from torch import Tensor
from torch.nn import functional

# Of an image, in pixels.
HEIGHT, WIDTH = 24, 96
# Around a mask, so that a distorted word is cut by the image and not by the mask.
MARGIN = 8


def distort(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Grey images of scenes `(batch, 1, 24, 96)` in [0, 1] from text masks `(batch, 1, 40, 112)`.

    The text is bent and seen in perspective, gets a shadow or a border now and then, lies on a
    cluttered background, is crossed by lines; then come blur and noise.
    """
    batch = masks.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1, generator=generator) * (high - low) + low

    def chance(share: float) -> Tensor:
        return (torch.rand(batch, 1, 1, 1, generator=generator) < share).float()

    def clouds(rows: int, columns: int) -> Tensor:
        coarse = torch.randn(batch, 1, rows, columns, generator=generator)
        return functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)

    y = torch.arange(HEIGHT).view(1, 1, -1, 1) - (HEIGHT - 1) / 2
    x = torch.arange(WIDTH).view(1, 1, 1, -1) - (WIDTH - 1) / 2

    def line(thickness: float) -> Tensor:
        offset = y - uniform(-10, 10) - uniform(-0.6, 0.6) * x - uniform(-4, 4) * (x / 48) ** 2
        return (thickness - offset.abs()).clamp(0, 1)

    # Where each pixel of the image lies on the canvas, in pixels from the centre.
    depth = 1 + uniform(-0.1, 0.1) * x / 48 + uniform(-0.12, 0.12) * y / 12
    across = (x * uniform(0.97, 1.12) + y * uniform(-0.35, 0.35)) / depth + uniform(-3, 3)
    down = y * uniform(0.9, 1.15) + x * uniform(-0.06, 0.06) + uniform(-2.5, 2.5) * (x / 48) ** 2
    down = down / depth + uniform(-1.5, 1.5)
    half = torch.tensor([WIDTH / 2 + MARGIN, HEIGHT / 2 + MARGIN])
    grid = torch.cat([across.expand_as(depth), down], dim=1).permute(0, 2, 3, 1) / half
    text = functional.grid_sample(masks, grid, align_corners=False)

    contrast = uniform(0.4, 1.0)
    dark = uniform(0, 1) * (1 - contrast)
    inverted = chance(0.5)
    ink, paper = dark + contrast * inverted, dark + contrast * (1 - inverted)
    image = paper + contrast * uniform(0, 0.1) * clouds(2, 4)
    image = image + contrast * uniform(-0.3, 0.3) * (8 * clouds(4, 12)).sigmoid()
    image = image.lerp(uniform(0, 1), line(1.5) * chance(0.2))

    halo = functional.max_pool2d(text, 3, stride=1, padding=1)
    shift_y, shift_x = (torch.randint(-2, 3, (2,), generator=generator)).tolist()
    shadow = text.roll((shift_y, shift_x), dims=(2, 3))
    effect = chance(0.4) * halo.lerp(shadow, chance(0.5)) * uniform(0.3, 0.9)
    image = image.lerp(paper.lerp(ink, uniform(-0.8, 0.4)), effect)
    image = image.lerp(ink + contrast * uniform(0, 0.1) * clouds(3, 12), text)
    image = image.lerp(uniform(0, 1), line(1.0) * chance(0.15))

    image = blur(image, uniform(0.2, 0.8))
    noise = torch.randn(image.shape, generator=generator)
    return (image + noise * (0.01 + contrast * uniform(0, 0.1))).clamp(0, 1)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Images `(batch, 1, height, width)`, blurred by sigmas `(batch, 1, 1, 1)` in pixels."""
    taps = torch.exp(-0.5 * (torch.arange(-2, 3) / sigma) ** 2)
    taps = taps / taps.sum(3, keepdim=True)
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate").transpose(0, 1)
    for kernel in (taps, taps.transpose(2, 3)):
        padded = functional.conv2d(padded, kernel, groups=len(images))
    return padded.transpose(0, 1)
