"""Results as pictures: in a terminal, and on a page that opens offline."""
