"""What DEPER is trained on."""
