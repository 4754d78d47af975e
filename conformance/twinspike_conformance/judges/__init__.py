"""What the clauses allow of an answer, by the reference and by the bounds."""
