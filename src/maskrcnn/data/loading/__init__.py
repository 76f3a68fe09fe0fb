"""From a `Dataset` to batches for training: transforms, samplers, the loader and its processes."""
