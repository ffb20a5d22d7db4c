"""Messages to the broker, remembered until it has confirmed them."""
