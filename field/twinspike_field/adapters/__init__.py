"""One file a library; they don't know one another. Each has `backend`, which needs its library installed."""
