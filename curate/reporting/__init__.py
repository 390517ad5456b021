"""What people look at: text that is safe to print, distributions, examples, and their drawings."""
