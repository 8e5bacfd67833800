"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import safekd
import solvers

MODULES = sorted(
    found.name
    for package in (safekd, solvers)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if "._triton_" not in found.name  # written for Triton, which need not be there
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch})
    assert failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [
        example for name in MODULES for test in finder.find(importlib.import_module(name)) for example in test.examples
    ]
    assert len(found) >= 5
