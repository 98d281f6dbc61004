"""The kernels: a C++ library that computes a whole step in one call."""
