"""What a fit of pictures draws on its way, and how far that is from pictures held out.

At evenly spaced moments the averaged weights draw as many pictures as are held out, under the same
conditions. Their features are those of a classifier of the labels where the condition is a class,
and the pixels themselves otherwise; the distance is Fréchet's where there are more pictures than
features, and KID, which is unbiased at any size, where there are not. All noise comes from forked
generators: the weights are those of a run that nobody watches.
"""

import base64
import io
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.reading import Dataset
from ..errors import DataError, UsageError
from ..inference.fitted_model import FittedModel
from ..metrics import classifier, codecs, extractors, kernels, wasserstein
from ..metrics.extractors import FeatureExtractor
from ..model import GenerativeModel
from ..networks.layout import is_image

ROWS = 500  # pictures that are drawn, and as many held out
TAUGHT = 10_000  # pictures that the classifier is fitted to
SHOWN = 16  # pictures that are kept to be shown


class SampleMonitor:
    """Looks at a model in training some times, and keeps what it saw in the run's history.

    Arguments:
        times: How often in a full run.
        samples: All data.
        train: Rows that are trained on.
        held: Rows that are not.
        seed: Of the classifier and of what is drawn.
    """

    def __init__(
        self, times: int, samples: Dataset, train: np.ndarray, held: np.ndarray, seed: int
    ) -> None:
        check_monitor(samples, len(held))
        rng = np.random.default_rng(seed)
        self.times, self.seed, self.done = times, seed, 0
        self.taught = rng.permutation(train)[:TAUGHT]
        self.held, self.samples = held[:ROWS], samples
        self.facts: dict[str, Any] = {}  # what the distance is; known from the first look on

    def due(self, count: int, steps: int) -> bool:
        """Whether the next look is due after so many of the steps."""
        return count * self.times // max(steps, 1) > self.done

    def look(self, fitted: FittedModel, model: GenerativeModel) -> dict[str, Any]:
        """What the history is told: the distance, the pictures, and the seconds it took."""
        began = time.monotonic()
        if not self.facts:
            self.prepare()
        self.done += 1
        n = len(self.held)
        y = None if self.samples.y is None else self.samples.y[self.held]
        drawn = replace(fitted, model=model).draw(n, y, seed=self.seed)
        distance = self.distance(drawn)
        shown = png_contact_sheet(self.seen, drawn[:SHOWN])
        seconds = round(time.monotonic() - began, 3)
        return {"distance": distance, "pictures": shown, "watching": seconds}

    def prepare(self) -> None:
        """Choose the features, and measure the floor between pictures of training and held out."""
        held, event = self.held, self.samples.schema.event
        taught = self.samples.x[self.taught].astype(np.float64)
        self.seen = extractors.fit_pixel_range(taught.reshape(len(taught), -1), event)
        self.extract = self.extractor(taught)
        self.real = self.features(self.samples.x[held].astype(np.float64))
        floor = self.distance(taught[: len(held)])
        enough = len(held) > self.real.shape[1]
        self.facts = {
            "metric": f"{'FD' if enough else 'KID'}-{self.extract.name}",
            "features": self.extract.description,
            "rows": len(held),
            "floor": floor,
        }

    def extractor(self, x: np.ndarray) -> FeatureExtractor:
        """The classifier of the labels where there are classes, else the pixels."""
        samples, rows = self.samples, self.taught
        condition = samples.schema.condition
        if condition is None or len(condition.labels) < 2 or samples.y is None:
            return extractors.feature_extractor("raw", self.seen)
        self.mean, self.scale = x.mean(0), float(x.std()) or 1.0
        code = samples.schema.encode(samples.y[rows], len(rows))[:, 1:].argmax(1)
        network = classifier.fit_classifier((x - self.mean) / self.scale, code, seed=self.seed)
        found = extractors.classifier_extractor(network)
        return found._replace(features=lambda x: found.features((x - self.mean) / self.scale))

    def features(self, x: np.ndarray) -> np.ndarray:
        """Features of pictures, one row for each."""
        return self.extract.features(x).x

    def distance(self, x: np.ndarray) -> float:
        """How far pictures are from those held out."""
        made = self.features(x)
        if len(made) <= made.shape[1]:
            return kernels.kid(self.real, made)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its bias shows in the floor beside it
            return wasserstein.frechet_distance(self.real, made)


def check_monitor(samples: Dataset, held: int) -> None:
    """Refuse to watch what cannot be watched.

    Raises:
        UsageError: If the data are no pictures.
        DataError: If none are held out.
    """
    if not is_image(samples.schema.event):
        raise UsageError("watch is for pictures, and the data are none: leave it out")
    if not held:
        raise DataError("watch needs pictures held out, and with fewer than 40 there are none")


def png_contact_sheet(seen: extractors.PixelRange, x: np.ndarray) -> str:
    """Pictures side by side as a PNG in base64."""
    from PIL import Image

    colours = np.moveaxis(seen.to_tensor(x).numpy(), 1, -1)
    colours = colours if colours.shape[-1] in (1, 3) else colours[..., :1]
    sheet = codecs.tile_square(np.round(255 * colours).astype(np.uint8))
    file = io.BytesIO()
    Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
