"""Tables of many runs: which runs belong in one row, and what the columns hold.  No torch."""
