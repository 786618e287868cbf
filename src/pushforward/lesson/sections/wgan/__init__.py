"""Section 4 of the lesson: Wasserstein distance and WGAN, and the metrics of problem 5.4."""

from .. import Section
from . import critic, figures, measures, penalty, training, transporting

SECTION = Section(
    title="Wasserstein distance and WGAN",
    claims=[
        *transporting.CLAIMS,
        *critic.CLAIMS,
        *penalty.CLAIMS,
        *training.CLAIMS,
        *measures.CLAIMS,
    ],
    figures={
        "distances_of_a_shift": figures.draw_shift_distances,
        "optimal_critic": figures.draw_optimal_critic,
        "critic_slopes": figures.draw_critic_slopes,
    },
    notes={
        "R33": "figure critic_slopes, beside claims 4.3-gap and 4.4-sign",
        "R24": "figure distances_of_a_shift: JS is flat where W1 is not",
        "A05": "the arrow in 4.4 is a misread character; nothing depends on it",
    },
)
