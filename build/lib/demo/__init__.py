"""The web page: one module a tab, layout and wiring only; the work is done by `lipsync`."""
