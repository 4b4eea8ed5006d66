"""Workflows: definitions as graphs of steps, runs of them, and the engine that moves a run from state to state."""
