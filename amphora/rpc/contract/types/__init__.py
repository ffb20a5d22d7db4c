"""What a service offers, in types: hints, schemas and descriptions."""
