"""From checks to records: examples in, one process per check, whatever ends it."""
