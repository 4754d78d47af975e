"""Other libraries of spiking networks, judged by the clauses: `python -m twinspike_field snntorch norse`.

Each library has one adapter that maps what it can express to operations of the specification by its documented
arguments and corrects nothing; the conformance suite's bounds judge what comes out. What differs is told as a choice
or a fault in `known/`, with lines of that library's own interface that show it, which are run.
"""
