"""Latency predictors: what a network takes on a device, from few measurements of it and many of other devices."""
