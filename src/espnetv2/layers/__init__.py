"""Modules with parameters: the units that the networks are made of."""
