"""Practice problem 2: a VAE on two modes."""

from . import Problem

PROBLEM = Problem(title="A VAE on two modes", parts=[])
