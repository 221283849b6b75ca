"""The programs on devices behind some methods; the methods themselves import no JAX until they run."""
