"""What Cloud Build and Artifact Registry do here: read a Dockerfile, make an image of it, keep the image."""
