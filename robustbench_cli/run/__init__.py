"""One module per command: build what was asked for, call the engine, leave a record."""
