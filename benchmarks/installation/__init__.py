"""What installing pydeper costs, and where it is possible."""
