r"""Variational autoencoder: a latent-variable model fitted by a bound on its likelihood.

.. math:: \log p(x) \ge \underbrace{\mathbb E_{q(z \mid x)} \log p(x \mid z)}_{-\text{distortion}}
    - \beta\,\underbrace{\mathrm{KL}(q(z \mid x) \,\|\, \mathcal N(0, I))}_{\text{rate}}

holds for every :math:`\beta \ge 1`; at :math:`\beta = 1` the gap is the divergence from
:math:`q` to the posterior (Kingma & Welling, 2014; Higgins et al., 2017). What :math:`p(x \mid z)`
is, follows from the data: Gaussian for real numbers, Bernoulli for bits, categorical for a few
levels and a discretised logistic for many. All terms are sums over entries, in nats.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    logsigmoid,
    softplus,
)

from ..errors import DataError, UsageError
from ..model import Event, GenerativeModel, Likelihood, Recipe
from ..networks.mlp import mlp
from ..shapes import Condition, Data, PerDatum, Scalar, standard_normal, sum_event
