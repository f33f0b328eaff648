"""Very wide multi-layer perceptrons for scikit-learn."""
