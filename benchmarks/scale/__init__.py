"""What do size and number cost?  Peak memory and time of a step and of an evaluation, beside a plain loop."""
