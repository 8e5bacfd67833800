"""The problem: functions as they are handed in, variables in their own units, scales, first and second derivatives.

What happens in here, in this order: input is checked and called in the dtype that it takes (``_user_functions``); each
variable gets a unit (``_variable_units``); gradients, Jacobians and Hessians come from torch, or by differences where
functions can be differentiated once (``_derivatives``, ``_check_derivatives``); all of it is scaled
(``_scaled_problem``, ``_scaled_point``), and evaluations are counted and limited (``_limits``).
"""
