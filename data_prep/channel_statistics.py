"""Channel means and standard deviations of a stream of images, exact."""

import cv2
import numpy as np

VALUES = np.arange(256)


class ChannelStatistics:
    """Counts how often each value occurs in each channel: whole numbers, so nothing is lost."""

    def __init__(self, channels: int = 3):
        self._counts = np.zeros((channels, len(VALUES)), np.int64)

    def add(self, images: np.ndarray) -> None:
        """`images`: (count, channels, height, width), uint8, fewer than 2^24 pixels (calcHist counts in float)."""
        planes = images.reshape(*images.shape[:2], -1)
        for channel, counts in enumerate(self._counts):
            histogram = cv2.calcHist([planes[:, channel]], [0], None, [len(VALUES)], [0, len(VALUES)])
            counts += histogram.ravel().astype(np.int64)

    @property
    def mean(self) -> list[float]:
        return (self._counts @ VALUES / self._counts.sum(1)).tolist()

    @property
    def std(self) -> list[float]:
        """Of the population (divided by the count, not by count - 1), as the published values are."""
        pixels = self._counts.sum(1)
        return np.sqrt(self._counts @ VALUES**2 / pixels - (self._counts @ VALUES / pixels) ** 2).tolist()
