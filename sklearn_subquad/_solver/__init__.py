"""Damped Gauss-Newton steps: when they are taken, and when to stop."""
