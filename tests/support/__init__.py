"""Fakes, builders and real services that tests of more than one folder work with."""
