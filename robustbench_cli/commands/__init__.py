"""One module per command: build what was asked for, run it, leave a record."""
