"""What clients and servers agree on: names, bodies, serializers, and those of amphora 0.1."""
