"""Inputs as nobody would wish them, drawn by a seed, each with what it must lead to."""
