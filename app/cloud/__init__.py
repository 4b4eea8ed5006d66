"""Google Cloud, as the application uses it: the only package that imports Google's clients."""
