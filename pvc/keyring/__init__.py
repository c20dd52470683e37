"""Where the keys are that make people's names and addresses in the log readable: outside of it, to be destroyed."""
