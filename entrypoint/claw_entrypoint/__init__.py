"""First process of a claw image: seeds /config, prepares /state and /logs, becomes the gateway."""
