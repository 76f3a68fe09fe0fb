"""The protocols of other tools: labelling tools, and clients of inference servers."""
