"""The reference: every operation in float64 NumPy, forward and hand-written adjoint, to be read beside the clauses.

It is slow and plain on purpose: loops over time, one value at a time where that is clearer. Speed
lives in the backends, and what they compute is what stands here.
"""
