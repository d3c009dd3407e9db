"""From task files to batches: readers, tags and spans, words to pieces, padding, generators."""
