"""Subject identification: telling people apart by what they say and how they look; what a persona gives away."""
