"""Practice problem 1: two derivations of the evidence lower bound."""

from . import Problem

PROBLEM = Problem(title="Two derivations of the evidence lower bound", parts=[])
