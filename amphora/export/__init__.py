"""A service's offer in other formats: Python stubs, OpenRPC, OpenAPI."""
