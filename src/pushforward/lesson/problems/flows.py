"""Practice problem 5: flow matching and diffusion."""

from . import Problem

PROBLEM = Problem(title="Flow matching and diffusion", parts=[])
