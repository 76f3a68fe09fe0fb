"""A model behind an address: HTTP over the one pipeline of `predict`, with limits, and protocols of other tools."""
