"""Settings of a run: their schema, presets and suites, and a catalogue of what there is."""
