"""Performance, each line a ratio against a peer or a limit measured in the same run. `make bench` prints the table."""
