"""The demo's world: real drawings, planted and recorded faults, a bad web that serves them."""
