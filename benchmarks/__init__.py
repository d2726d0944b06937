"""Speed and memory as ratios: each benchmark against a plain reference, written here as the published loops do it."""
