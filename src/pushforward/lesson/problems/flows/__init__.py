"""Practice problem 5: flow matching and diffusion, on the same data with the same network."""

from .. import Part, Problem
from .derivation import DIFFUSION, FIELD
from .experiments import quality, speed, training

PROBLEM = Problem(
    title="Flow matching and diffusion",
    parts=[
        Part("Implement flow matching: which field does its loss find?", FIELD),
        Part(
            "Implement DDPM, and train both on the same two-dimensional data.", DIFFUSION, training
        ),
        Part("Compare the speed of sampling.", [], speed),
        Part("Compare the quality of the samples.", [], quality),
    ],
)
