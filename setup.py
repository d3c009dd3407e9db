"""For tools that still ask for a setup.py; what there is to say about the package stands in pyproject.toml."""

from setuptools import setup

setup()
