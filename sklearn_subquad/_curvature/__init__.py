"""What a step is computed from: losses, the Jacobian and products with it, sketches, preconditioners."""
