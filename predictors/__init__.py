"""What can be learned from few samples."""
