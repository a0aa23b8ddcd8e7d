"""Channel means and standard deviations of a stream of images, exact."""

import numpy as np


class ChannelStatistics:
    """Sums pixels and their squares per channel. Both stay whole numbers below 2^53, so doubles lose nothing."""

    def __init__(self, channels: int = 3):
        self._count = 0
        self._sum = np.zeros(channels)
        self._square_sum = np.zeros(channels)

    def add(self, images: np.ndarray) -> None:
        """`images`: (count, channels, height, width), uint8."""
        for channel in range(len(self._sum)):
            values = images[:, channel].astype(np.float64).ravel()
            self._sum[channel] += values.sum()
            self._square_sum[channel] += values @ values
        self._count += images[:, 0].size

    @property
    def mean(self) -> list[float]:
        return (self._sum / self._count).tolist()

    @property
    def std(self) -> list[float]:
        """Of the population (divided by the count, not by count - 1), as the published values are."""
        return np.sqrt(self._square_sum / self._count - (self._sum / self._count) ** 2).tolist()
