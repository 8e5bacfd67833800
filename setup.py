"""Everything is declared in setup.cfg; this file lets tools that expect a setup.py find it."""

from setuptools import setup

setup()
