"""Sparse rows, packed matrices, their products, threads, conjugate gradients."""
