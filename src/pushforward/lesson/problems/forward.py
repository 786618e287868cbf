"""Practice problem 4: the forward process."""

from . import Problem

PROBLEM = Problem(title="The forward process", parts=[])
