"""Section 3 of the lesson: generative adversarial networks."""

from .. import Section
from . import discriminator, divergence, figures, instability

SECTION = Section(
    title="Generative adversarial networks",
    claims=[*discriminator.CLAIMS, *divergence.CLAIMS, *instability.CLAIMS],
    figures={
        "optimal_discriminator": figures.draw_optimal_discriminator,
        "generator_gradients": figures.draw_generator_gradients,
        "dirac_trajectories": figures.draw_dirac_trajectories,
        "mode_drop": figures.draw_mode_drop,
    },
    notes={
        "R22": "figure optimal_discriminator, beside claim 3.2-trained",
        "R24": "figure generator_gradients, beside claim 3.4-vanishing",
        "R28": "figure dirac_trajectories, beside claim 3.3-dynamics",
        "A41": "the signs of 4.3 and 4.4 are compared in section 4",
    },
)
