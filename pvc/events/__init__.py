"""What happened: the vocabulary of the log, one module per aggregate, and the record that carries it."""
