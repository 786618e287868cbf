"""Samples of a fit to images on its way, and their distance to images held out.

At evenly spaced moments the averaged weights draw as many images as are held out, under the same
conditions. Their features are those of a classifier of the labels where the condition is a class,
and the pixels themselves otherwise; the distance is Fréchet's where there are more images than
features, and KID, which is unbiased at any size, where there are not. All noise comes from forked
generators: the weights are those of a run without a monitor.
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

ROWS = 500  # images that are drawn, and as many held out
FITTED = 10_000  # images that the classifier is fitted to
SHOWN = 16  # images that are kept to be shown


class SampleMonitor:
    """Measures images of a model in training, ``done`` times before it was resumed."""

    def __init__(
        self,
        times: int,
        fitted: FittedModel,
        samples: Dataset,
        split: tuple[np.ndarray, np.ndarray],
        seed: int,
        done: int = 0,
    ) -> None:
        train, held = split
        if not is_image(samples.schema.event):
            raise UsageError("watch is for images, and the data are none: leave it out")
        if not len(held):
            raise DataError("watch needs images held out, and with fewer than 40 there are none")
        self.times, self.fitted, self.seed, self.done = times, fitted, seed, done
        self.train = np.random.default_rng(seed).permutation(train)[:FITTED]
        self.held, self.samples = held[:ROWS], samples
        self.facts: dict[str, Any] = {}  # what the distance is; known from the first look on

    def due(self, count: int, steps: int) -> bool:
        return count * self.times // max(steps, 1) > self.done

    def reschedule(self, count: int, steps: int) -> None:
        self.done = count * self.times // steps

    def look(self, model: GenerativeModel) -> dict[str, Any]:
        began = time.monotonic()
        if not self.facts:
            self.prepare()
        self.done += 1
        y = None if self.samples.y is None else self.samples.y[self.held]
        images = replace(self.fitted, model=model).draw(len(self.held), y, seed=self.seed)
        distance, shown = self.distance(images), png_contact_sheet(self.range, images[:SHOWN])
        seconds = round(time.monotonic() - began, 3)
        return {"distance": distance, "pictures": shown, "watching": seconds}

    def prepare(self) -> None:
        held, event = self.held, self.samples.schema.event
        train = self.samples.x[self.train].astype(np.float64)
        self.range = extractors.fit_pixel_range(train.reshape(len(train), -1), event)
        self.extract = self.extractor(train)
        self.real = self.features(self.samples.x[held].astype(np.float64))
        enough = len(held) > self.real.shape[1]
        self.facts = {
            "metric": f"{'FD' if enough else 'KID'}-{self.extract.name}",
            "features": self.extract.description,
            "rows": len(held),
            "floor": self.distance(train[: len(held)]),
        }

    def extractor(self, x: np.ndarray) -> FeatureExtractor:
        samples, rows, condition = self.samples, self.train, self.samples.schema.condition
        if condition is None or len(condition.labels) < 2 or samples.y is None:
            return extractors.feature_extractor("raw", self.range)
        self.mean, self.scale = x.mean(0), float(x.std()) or 1.0
        code = samples.schema.encode(samples.y[rows], len(rows))[:, 1:].argmax(1)
        network = classifier.fit_classifier((x - self.mean) / self.scale, code, seed=self.seed)
        found = extractors.classifier_extractor(network)
        return found._replace(features=lambda x: found.features((x - self.mean) / self.scale))

    def features(self, x: np.ndarray) -> np.ndarray:
        return self.extract.features(x).x

    def distance(self, x: np.ndarray) -> float:
        made = self.features(x)
        if len(made) <= made.shape[1]:
            return kernels.kid(self.real, made)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its bias shows in the floor beside it
            return wasserstein.frechet_distance(self.real, made)


def png_contact_sheet(range_: extractors.PixelRange, x: np.ndarray) -> str:
    from PIL import Image

    colours = np.moveaxis(range_.to_tensor(x).numpy(), 1, -1)
    colours = colours if colours.shape[-1] in (1, 3) else colours[..., :1]
    sheet = codecs.tile_square(np.round(255 * colours).astype(np.uint8))
    file = io.BytesIO()
    Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
