"""Media: video, sound and pictures in (reader, decoder in a sandboxed child) and out (writer)."""
