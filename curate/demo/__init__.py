"""The demo's own world: real drawings with captions, faults that are planted and recorded, and a bad web that serves them."""
