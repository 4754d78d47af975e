"""Training of joint networks with any backend: configs, the loop, checkpoints, the command line and plots.

It knows backends only through `twinspike.load` and the protocols of `twinspike.backend`, so that a run
started with one backend goes on with another, and a new backend trains without a line changed here.
"""
