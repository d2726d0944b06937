"""From a distilled set to scores: classifiers trained on it, tested once on real images."""
