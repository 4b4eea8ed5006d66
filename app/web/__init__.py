"""What answers HTTP: middleware, health, problem documents, the API's root and the pages."""
