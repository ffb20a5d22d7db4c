"""What the transport and the embedded broker both need beside the bytes."""
