"""Trainers: one file each; `curate.train` runs them step by step to the last one."""
