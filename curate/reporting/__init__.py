"""What people look at: text that is safe to print, counts, distributions, examples and the drawings of them."""
