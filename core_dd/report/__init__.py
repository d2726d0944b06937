"""From many scores to one report."""
