"""Practice problem 3: the optimal discriminator."""

from . import Problem

PROBLEM = Problem(title="The optimal discriminator", parts=[])
