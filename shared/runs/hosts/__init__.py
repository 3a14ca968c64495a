"""Who drives a run: the terminal in its own process, and the serverless app with Durable Functions."""
