"""Where a step runs when a thread of the launcher is not enough: resources, the job client, and its implementations."""
