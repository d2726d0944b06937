"""The distilled set: its file, what stands in it, its pictures."""
