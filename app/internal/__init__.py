"""What only Cloud Tasks and Cloud Scheduler may call. The worker serves it, the web service never does."""
