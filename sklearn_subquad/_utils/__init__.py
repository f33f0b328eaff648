"""Random streams, seconds, missing values, types."""
