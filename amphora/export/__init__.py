"""What a service offers, in other languages: stubs for Python, OpenRPC, OpenAPI."""
