"""Who acts when: a coloured strip under a video, with the whole episode in it and a mark at the present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from repertoire.experiment.plots import latent_colours

Frame = np.ndarray  # [H, W, 3] uint8
HEIGHT = 18  # pixels of the colours
_DARK, _WHITE = (24, 26, 30), 255


class Strip(NamedTuple):
    """Values [T, n] of what acts, `dt` seconds apart, and the n names.

    Rows that sum to 1 without negative entries are shares; anything else is a latent.
    """

    values: np.ndarray
    names: tuple[str, ...]
    dt: float

    @property
    def shared(self) -> bool:
        """Whether the values are shares. A latent may be one-hot too, and is shown well as that."""
        return bool((self.values >= 0).all() and np.allclose(self.values.sum(1), 1.0, atol=1e-3))

    def label(self, t: int) -> str:
        """What acts at row `t`: the names of the largest shares, or the latent."""
        row = self.values[t]
        if not self.shared:
            return "latent " + " ".join(f"{x:+.2f}" for x in row[:6])
        shown = [i for i in np.argsort(-row, kind="stable")[:3] if row[i] >= 0.05]
        return "  ".join(self.names[i] if row[i] > 0.995 else f"{self.names[i]} {row[i]:.2f}" for i in shown)


def paint(strip: Strip, width: int) -> Frame:
    """The episode [HEIGHT, width, 3] from left to right: colours stacked by share, or the colour of the latent."""
    rows = (np.arange(width) * len(strip.values)) // width
    if not strip.shared:
        colours = latent_colours(strip.values)[rows]
        return _pixels(np.broadcast_to(colours, (HEIGHT, width, 3)))
    ends = np.cumsum(strip.values[rows], axis=1)  # [width, n]
    heights = (np.arange(HEIGHT) + 0.5) / HEIGHT
    owner = (heights[:, None, None] > ends).sum(-1).clip(max=len(strip.names) - 1)
    return _pixels(palette(len(strip.names))[owner])


def palette(n: int) -> np.ndarray:
    """Colours [n, 3] in 0 .. 1 of n actors."""
    return latent_colours(np.eye(max(n, 3)))[:n]


def under(frames: Iterable[Frame], strip: Strip, stride: int = 1) -> Iterator[Frame]:
    """`frames` with the strip and the name of who acts below; frame i is row i * `stride`."""
    painted: Frame | None = None
    for i, frame in enumerate(frames):
        if painted is None:
            painted = paint(strip, frame.shape[1])
        t = min(i * stride, len(strip.values) - 1)
        yield np.concatenate([frame, _marked(painted, t / len(strip.values)), _line(strip.label(t), frame.shape[1])])


def _marked(painted: Frame, part: float) -> Frame:
    """With a white line at `part` of the width."""
    out, x = painted.copy(), int(part * painted.shape[1])
    out[:, x : x + 3] = _WHITE
    return out


def _line(text: str, width: int) -> Frame:
    """`text` on a dark line [20, width, 3]."""
    out = np.full((20, width, 3), _DARK, np.uint8)
    written = stamp(text, width)
    if written is not None:
        h = min(len(written), 20)
        out[:h, : written.shape[1]] = written[:h]
    return out


def stamp(text: str, width: int) -> Frame | None:
    """White text on a dark strip [h, w, 3], at most `width` wide; None for no text."""
    if not text:
        return None
    from PIL import Image, ImageDraw, ImageFont

    font: Any = ImageFont.load_default(size=max(11, min(18, width // 14)))
    while len(text) > 1 and font.getbbox(text)[2] + 10 > width:
        text = text[:-2].rstrip() + "…"
    box = font.getbbox(text)
    image = Image.new("RGB", (int(min(box[2] + 10, width)), int(box[3] + 6)), _DARK)
    ImageDraw.Draw(image).text((5, 2), text, font=font, fill=(255, 255, 255))
    return np.asarray(image)


def _pixels(colours: np.ndarray) -> Frame:
    return np.asarray(np.rint(255 * colours), np.uint8)
