"""Cloud Tasks: what is queued, when it is due, and the loop that delivers it."""
