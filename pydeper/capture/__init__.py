"""The capture page: one person records how they look at pictures and what they say about them (extra `capture`)."""
