"""Text generation: options, processors of scores, the cached decoding core, and text in and out."""
