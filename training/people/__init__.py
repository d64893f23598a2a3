"""Who is it: telling people apart by what they say and how they look."""
