"""Distillation losses: how far the student's distribution is from the pooled target."""

from ._forward_kl import ForwardKL

__all__ = ["ForwardKL"]
