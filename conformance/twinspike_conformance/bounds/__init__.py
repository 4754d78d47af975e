"""How far a right answer may be off: knows NumPy alone, no neuron and no network."""
