"""Small things that all rooms use, and that know of none of them."""
