"""nasflow."""
