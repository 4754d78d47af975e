"""The suite's command line."""
