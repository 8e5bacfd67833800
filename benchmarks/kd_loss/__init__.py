"""Distillation over a vocabulary: what the loss takes beside plain torch, TRL and Liger, one size at a time."""
