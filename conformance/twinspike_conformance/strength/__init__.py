"""How much the suite sees, and that it accuses nobody who is right."""
