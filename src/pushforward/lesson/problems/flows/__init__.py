"""Practice problem 5: flow matching and diffusion, on the same data with the same network."""

from .. import Problem, ProblemPart
from .derivation import DIFFUSION, FIELD
from .experiments import run_quality_comparison, run_speed_comparison, run_training_comparison

PROBLEM = Problem(
    title="Flow matching and diffusion",
    parts=[
        ProblemPart("Implement flow matching: which field does its loss find?", FIELD),
        ProblemPart(
            "Implement DDPM, and train both on the same two-dimensional data.",
            DIFFUSION,
            run_training_comparison,
        ),
        ProblemPart("Compare the speed of sampling.", [], run_speed_comparison),
        ProblemPart("Compare the quality of the samples.", [], run_quality_comparison),
    ],
)
