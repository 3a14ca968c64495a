"""What is done on one node, as programs (pure): which commands are sent, and what is made of their answers."""
