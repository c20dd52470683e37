"""What must be done: per domain a pure plan(state, actual) -> step, and the reconciler that carries it out."""
