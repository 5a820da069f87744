"""RePlaid's schedule of least variance, for any model that is trained by a bound."""
