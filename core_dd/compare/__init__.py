"""Comparison runs: a grid of (producer, data, ipc, seed, network, protocol), made, judged and put into tables."""
