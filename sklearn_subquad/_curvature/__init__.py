"""Ingredients of a step: losses, the Jacobian and products with it, sketches, preconditioners."""
