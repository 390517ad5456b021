"""Pictures: what an image file says of itself, and its pixels."""
