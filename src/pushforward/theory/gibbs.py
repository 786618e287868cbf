r"""Metropolis within Gibbs for models with latent variables (Mattei & Frellsen, 2018).

.. math:: z' \sim q(z \mid x) \text{ accepted with } \min\Big(1,
    \frac{p(x, z')\,q(z \mid x)}{p(x, z)\,q(z' \mid x)}\Big), \qquad x^U \sim p(x^U \mid z)

leaves :math:`p(z, x^U \mid x^K)` as it is, for known entries K and unknown ones U.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Normal


def impute_by_gibbs(
    posterior: Callable[[Tensor], Normal],
    log_weight: Callable[[Normal, Tensor, Tensor], Tensor],
    draw: Callable[[Tensor], Tensor],
    rows: Tensor,
    known: Tensor,
    *,
    sweeps: int,
) -> Tensor:
    r"""Draw the entries of rows that are not known, a chain for each.

    In the first quarter all proposals are taken (Rezende et al., 2014), so that the chains come to
    where the data are.

    Arguments:
        posterior: :math:`q(z \mid x)` of rows.
        log_weight: :math:`\log p(x, z) - \log q(z \mid x)` of latents ``(2, n, latent)`` and rows.
        draw: A sample of :math:`p(x \mid z)` for each latent.
        rows: Where the chains begin, ``(n, *event)``.
        known: Which entries stay, ``(*event,)``.
        sweeps: Of each chain.
    """
    x, z = rows, posterior(rows).sample()
    for sweep in range(sweeps):
        q = posterior(x)
        both = torch.stack([z, q.sample()])
        old, new = log_weight(q, both, x)
        taken = (torch.rand_like(new).log() < new - old) | (sweep < sweeps // 4)
        z = torch.where(taken[:, None], both[1], z)
        x = torch.where(known, rows, draw(z))
    return x
