"""How does it learn? Stage after stage, fold after fold, and it goes on after `kill -9`."""
