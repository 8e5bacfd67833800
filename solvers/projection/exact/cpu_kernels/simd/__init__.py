"""SIMD: rows of few teachers side by side in vector registers.

``_vector_builder`` turns arithmetic on symbols into vector instructions, ``_vector_programs`` are the steps of the
projection written with it, and ``_vector_kernels`` compiles them for each number of teachers and kind of order.
"""
