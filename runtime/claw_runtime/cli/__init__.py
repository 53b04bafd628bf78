"""The command line: one verb a file, argument → service or API → output, no logic of its own."""
