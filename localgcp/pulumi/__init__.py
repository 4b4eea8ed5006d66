"""What an offline machine lacks to run the real Pulumi engine: a language host and resource providers."""
