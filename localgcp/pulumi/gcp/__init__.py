"""The `gcp` provider for machines without the real one: 62 resource types as the REST calls the real provider makes.

`types.json` holds what a type's properties are; `kinds` how each type is created, read, updated and deleted.
"""
