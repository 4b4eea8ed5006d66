"""The Django application: one image, two roles. What is public is served by `web`, what is internal by `worker`."""
